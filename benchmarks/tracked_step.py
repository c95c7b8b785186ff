"""One training step of a sharded transformer without devices: prints the peak that PyTorch's memory tracker counts.

    python benchmarks/tracked_step.py CASE

`CASE` is a `Case` as JSON. The process plays rank 0 of `data_parallel x tensor_parallel` ranks whose collectives move
no data. Without tensor parallelism no tensor has data either; with it the shards are real, as among data-less tensors
the tracker also counts the whole logits with which PyTorch works out how a sharded loss is laid out. A first step
allocates what stays.
"""

import contextlib
import json
import sys
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional
from torch.testing._internal.distributed.fake_pg import FakeStore

from heliostat.placement.workloads import Transformer
from heliostat.values import Frozen


class Case(Frozen):
    """A model and how it is run: each block of the chain is sharded by itself, with AdamW in 32 bits."""

    shape: Transformer
    """Without a tied output layer; `gated` ones have the norms and biases of Llama, others those of GPT."""
    data_parallel: int
    tensor_parallel: int = 1
    zero: int = 3
    recompute: str = "none"
    dtype: str = "bf16"
    micro_batch: int = 1
    num_micro_batches: int = 2


class Attention(nn.Module):
    """Causal, with fewer heads of keys and values if the shape has them."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        bias = not shape.gated
        self.width = shape.hidden // shape.heads
        self.grouped = shape.kv_width < shape.hidden
        self.query = nn.Linear(shape.hidden, shape.hidden, bias=bias)
        self.key = nn.Linear(shape.hidden, shape.kv_width, bias=bias)
        self.value = nn.Linear(shape.hidden, shape.kv_width, bias=bias)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        batch, length, _ = x.shape
        query, key, value = (
            part(x).view(batch, length, -1, self.width).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=self.grouped)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class FeedForward(nn.Module):
    """GELU between two matrices, or SwiGLU between three."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        bias = not shape.gated
        self.up = nn.Linear(shape.hidden, shape.inner, bias=bias)
        self.gate = nn.Linear(shape.hidden, shape.inner, bias=bias) if shape.gated else None
        self.down = nn.Linear(shape.inner, shape.hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        inner = functional.gelu(self.up(x)) if self.gate is None else functional.silu(self.gate(x)) * self.up(x)
        out: Tensor = self.down(inner)
        return out


class Layer(nn.Module):
    """Norms before both parts."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(shape), Attention(shape)
        self.feed_forward_norm, self.feed_forward = norm(shape), FeedForward(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class Embedding(nn.Module):
    """Of tokens, and of positions where they are learned."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        learned = shape.positions == "learned"
        self.positions = nn.Parameter(torch.empty(shape.seq_len, shape.hidden)) if learned else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up."""
        x: Tensor = self.tokens(tokens)
        return x if self.positions is None else x + self.positions


class Head(nn.Module):
    """Norm and logits."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.norm = norm(shape)
        self.logits = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        logits: Tensor = self.logits(self.norm(x))
        return logits


class Model(nn.Module):
    """The chain of blocks that the planner counts."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.embedding = Embedding(shape)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.head = Head(shape)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x: Tensor = self.embedding(tokens)
        for block in (*self.layers, self.head):
            x = block(x)
        return x


def norm(shape: Transformer) -> nn.Module:
    """One kernel that saves its input. RMSNorm is that on devices; on the CPU it is five that save 32-bit copies."""
    return nn.LayerNorm(shape.hidden, bias=shape.norm == "layer")


def peak_bytes(case: Case) -> int:
    """Of the second step."""
    ranks = (case.data_parallel, case.tensor_parallel)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks[0] * ranks[1])
    mesh = init_device_mesh("cpu", ranks, mesh_dim_names=("data", "tensor"))
    with torch.device("meta"):
        model = Model(case.shape)
    split = case.tensor_parallel > 1
    if split:
        share_products(model, mesh["tensor"])
    shard(model, case, mesh["data"])
    with contextlib.nullcontext() if split else FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        step = stepper(model, optimizer, case)
        step(lambda: None)
        with FSDPMemTracker(model, optimizer) as tracker:
            step(tracker.reset_mod_stats)
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def share_products(model: Model, mesh: DeviceMesh) -> None:
    """Tensor and sequence parallelism, with a loss on the shards of the logits."""
    parts = {
        "embedding.tokens": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "head.norm": SequenceParallel(),
        "head.logits": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
    }
    for number in range(len(model.layers)):
        of_layer = {
            "attention_norm": SequenceParallel(),
            "feed_forward_norm": SequenceParallel(),
            "attention.out": RowwiseParallel(output_layouts=Shard(1)),
            "feed_forward.down": RowwiseParallel(output_layouts=Shard(1)),
        }
        for part in ("attention", "feed_forward"):
            of_layer[part] = PrepareModuleInput(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),))
        for part in ("attention.query", "attention.key", "attention.value", "feed_forward.up", "feed_forward.gate"):
            of_layer[part] = ColwiseParallel()
        parts |= {f"layers.{number}.{part}": style for part, style in of_layer.items()}
    parallelize_module(model, mesh, parts)


def shard(model: Model, case: Case, mesh: DeviceMesh) -> None:
    """Recomputation and ZeRO, block by block."""
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = mixed if case.dtype == "bf16" else MixedPrecisionPolicy()
    if case.recompute == "full":
        for number, layer in enumerate(model.layers):
            model.layers[number] = checkpoint_wrapper(layer, preserve_rng_state=False)
    for block in (model.embedding, *model.layers, model.head, model):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=case.zero == 3)


def stepper(model: Model, optimizer: torch.optim.Optimizer, case: Case) -> Callable[[Callable[[], None]], None]:
    """A step; what it is given is called between micro-batches."""
    tokens = torch.zeros(case.micro_batch, case.shape.seq_len, dtype=torch.long)
    loss_context = loss_parallel if case.tensor_parallel > 1 else contextlib.nullcontext

    def step(between: Callable[[], None]) -> None:
        for number in range(case.num_micro_batches):
            if number:
                between()
            with loss_context():
                logits = model(tokens)
                loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
                loss.backward()  # type: ignore[no-untyped-call]
            del logits, loss
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps({"peak_bytes": peak_bytes(Case.model_validate_json(sys.argv[1]))}))
