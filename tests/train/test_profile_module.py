"""What is counted from a module, against what follows from its hyperparameters alone."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.placement.encoder_decoder import EncoderDecoder, encoder_decoder
from heliostat.placement.sizes import FAMILIES, SIZES
from heliostat.placement.vision import VisionTransformer, vision_transformer
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer
from heliostat.train.profile import profile_module
from heliostat.train.profiling.run import run
from tests.train.models import Decoder, Translator, Vision

SAME = (
    "count", "num_parameters", "split_parameters", "boundary_elements", "carried_elements", "tensor_collectives",
    "recomputable", "largest_tensor_parallel", "experts",
)  # fmt: skip
TINY = {"hidden": 64, "layers": 3, "heads": 4, "seq_len": 32, "vocabulary": 211}
TINY_T5 = {"hidden": 64, "layers": 2, "heads": 2, "head_width": 48, "seq_len": 24, "target_len": 16, "vocabulary": 101}


def sized(size: str, **fields: Any) -> dict[str, Any]:
    """The fields of a published size."""
    named = {"vocabulary" if key == "vocab" else key: value for key, value in SIZES[size].items() if key != "family"}
    return {**FAMILIES[SIZES[size]["family"]], **named, **fields, "name": size}


def tiny(family: Any, **fields: Any) -> dict[str, Any]:
    return {**FAMILIES[family], **(TINY_T5 if family == "t5" else TINY), **fields, "name": f"tiny {family}"}


@pytest.mark.parametrize(
    "fields",
    [
        sized("gpt-2", bias="fused"),
        sized("gpt-2", bias="fused", dropout=True, attention="eager"),
        sized("llama-3.1-8b"),
        sized("llama-3.1-70b"),
        sized("mixtral-8x7b"),
        sized("bert-base", bias="fused", dropout=True),
        tiny("gpt", bias="fused"),
        tiny("llama", kv_heads=2),
        tiny("mixtral", experts=4, capacity=1.25),
        tiny("bert", bias="fused"),
    ],
    ids=lambda fields: fields["name"],
)
def test_decoders_and_encoders(fields: dict[str, Any]) -> None:
    shape = Transformer.model_validate(fields)
    ids = torch.zeros(2, shape.seq_len, dtype=torch.long)
    agree(counted(Decoder, shape, {"ids": ids, "labels": ids}), transformer(shape), shape.heads)


@pytest.mark.parametrize("fields", [sized("t5-small"), sized("t5-3b"), tiny("t5")], ids=lambda fields: fields["name"])
def test_encoder_decoders(fields: dict[str, Any]) -> None:
    shape = EncoderDecoder.model_validate(fields)
    ids, targets = (torch.zeros(2, length, dtype=torch.long) for length in (shape.seq_len, shape.target_len))
    batch = {"ids": ids, "targets": targets, "labels": targets}
    agree(counted(Translator, shape, batch), encoder_decoder(shape), shape.heads)


@pytest.mark.parametrize(
    "fields",
    [
        sized("vit-b-16", bias="fused"),
        {"name": "tiny vit", "hidden": 32, "layers": 3, "heads": 4, "image": 64, "classes": 10, "bias": "fused"},
    ],
    ids=lambda fields: fields["name"],
)
def test_vision_transformers(fields: dict[str, Any]) -> None:
    shape = VisionTransformer.model_validate(fields)
    image = torch.empty(2, shape.channels, shape.image, shape.image, dtype=torch.bfloat16)
    batch = {"image": image, "labels": torch.zeros(2, dtype=torch.long)}
    agree(counted(Vision, shape, batch), vision_transformer(shape), shape.heads)


@pytest.mark.parametrize(
    "fields",
    [tiny("gpt", dropout=True, attention="eager"), tiny("llama", kv_heads=2), tiny("mixtral", experts=4), tiny("bert")],
    ids=lambda fields: fields["name"],
)
def test_one_layer_that_stands_for_all_counts_as_running_all_with_values(fields: dict[str, Any]) -> None:
    shape = Transformer.model_validate(fields)
    batch = {name: torch.zeros(2, shape.seq_len, dtype=torch.long) for name in ("ids", "labels")}
    with torch.device("meta"):
        model = Decoder(shape)
    without, values = (run(one, batch, loss, name="x", seq_len=32) for one in (model, Decoder(shape)))
    assert without == values


def counted(model: type[nn.Module], shape: Any, batch: Mapping[str, Tensor]) -> WorkloadProfile:
    """The profile of a half-precision model of that shape."""
    with torch.device("meta"):
        made = model(shape).to(torch.bfloat16)
    return profile_module(made, batch, loss)


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(*(tensor for name, tensor in batch.items() if name != "labels"))
    return functional.cross_entropy(logits.flatten(0, -2).float(), batch["labels"].flatten(), reduction="sum")


def agree(found: WorkloadProfile, known: WorkloadProfile, heads: int) -> None:
    """All that decides a split is equal; what a program's own kernels decide is near."""
    assert found.num_parameters == known.num_parameters
    assert found.active_parameters == known.active_parameters
    assert found.tied_parameters == known.tied_parameters
    for one, other in zip(found.blocks, known.blocks, strict=True):
        assert {key: getattr(one, key) for key in SAME} == {key: getattr(other, key) for key in SAME}
        assert flops(one, "matmul") == pytest.approx(flops(other, "matmul"), rel=0.01)
        assert flops(one, "attention") == flops(other, "attention")
    for one, other in zip(found.blocks[1:-1], known.blocks[1:-1], strict=True):
        assert one.saved.boundary == other.saved.boundary
        # beyond what the formulas count: each norm's two 32-bit numbers per token, and where experts are, indices
        assert 0 <= one.saved.replicated - other.saved.replicated <= 64 * known.seq_len
        # and flash attention's 32-bit number per token and head
        assert 0 <= divided(one) - divided(other) <= 4 * heads * known.seq_len
        # plain PyTorch rotates by products, sums and copies where the formulas have one kernel, sums the gradients of
        # q, k and v, and copies what experts get and give; without rotation it joins heads without the copy they count
        assert 0.85 < moved(one) / moved(other) < 1.55
    head, known_head = found.blocks[-1], known.blocks[-1]
    assert 0 <= head.saved.replicated - known_head.saved.replicated <= 16 * known.seq_len
    # the formulas have the half-precision logits in `split`, which a program may hold and autograd does not
    assert head.saved.single == pytest.approx(known_head.saved.single, rel=0.06)
    assert head.saved.work == known_head.saved.work
    assert moved(head) == pytest.approx(moved(known_head), rel=0.2)


def flops(block: Block, kind: str) -> float:
    return sum(op.forward_flops for op in block.ops if op.kind == kind)


def moved(block: Block) -> float:
    return sum(op.elements + op.backward_elements for op in block.ops)


def divided(block: Block) -> float:
    return block.saved.split + block.saved.single + block.saved.core
