"""What a task's model is made of, counted without running it: `WorkloadProfile` from the meta device.

One forward and one backward pass over a few rows of tensors that have shapes and no values. A loss that looks at values
cannot run there; it runs on the CPU instead, with the same counters.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure
from heliostat.placement.workload import BlockProfile, WorkloadProfile
from heliostat.train.evaluate import tensors_of
from heliostat.train.replica import loss_of, select
from heliostat.train.task import Task, Tensors, make_task

NUM_ROWS = 64
"""Rows in the counted batch: enough that what does not grow with the batch is lost in the division."""
OUTSIDE = "outside"
"""The block for what the task computes outside of the chain: its loss, and the glue in the model's own forward."""


def profile(reference: str, data: DatasetVersion, params: Mapping[str, Any]) -> WorkloadProfile:
    """Count parameters, FLOPs and saved activations of every block of the task's model.

    The chain of blocks is the model's children in order, a container standing for its elements; equal neighbours are
    one block with a count. Backward FLOPs are exact for the whole model, divided over blocks as the forward ones are.

    Raises:
        UserError: the task or its parameters.
        TrainingFailure: the task's loss raises or breaks its contract.

    """
    task = make_task(reference, data, params)
    tensors = select(tensors_of(task.load("validation")), slice(NUM_ROWS))
    try:
        blocks = _count(task, tensors, torch.device("meta"))
    except (TrainingFailure, RuntimeError, NotImplementedError):
        blocks = _count(task, tensors, torch.device("cpu"))
    return WorkloadProfile(name=type(task).__name__, blocks=_merged(blocks))


class _Forward:
    """What a forward pass costs, by the block that is running: FLOPs, and bytes saved for the backward pass."""

    def __init__(self, counter: FlopCounterMode, model: nn.Module) -> None:
        self.flops: Counter[str] = Counter()
        self.saved_bytes: Counter[str] = Counter()
        self._counter = counter
        self._running = [OUTSIDE]
        self._seen = {_identity(parameter) for parameter in model.parameters()}

    @contextmanager
    def watching(self, blocks: Mapping[str, nn.Module]) -> Iterator[None]:
        with ExitStack() as hooks:
            for name, block in blocks.items():
                hooks.callback(block.register_forward_pre_hook(partial(self._enter, name)).remove)
                hooks.callback(block.register_forward_hook(self._leave).remove)
            hooks.enter_context(saved_tensors_hooks(self._save, lambda tensor: tensor))
            yield
        self._attribute()

    def _enter(self, name: str, *_: object) -> None:
        self._attribute()
        self._running.append(name)

    def _leave(self, *_: object) -> None:
        self._attribute()
        self._running.pop()

    def _attribute(self) -> None:
        """What has been counted since the last time belongs to the block that was running."""
        self.flops[self._running[-1]] += self._counter.get_total_flops() - self.flops.total()

    def _save(self, tensor: Tensor) -> Tensor:
        if _identity(tensor) not in self._seen:
            self._seen.add(_identity(tensor))
            self.saved_bytes[self._running[-1]] += tensor.untyped_storage().nbytes()
        return tensor


def _count(task: Task, tensors: Tensors, device: torch.device) -> list[BlockProfile]:
    with device:
        model = task.model()
    batch = {name: tensor.to(device) for name, tensor in tensors.items()}
    blocks = _chain(model)
    with FlopCounterMode(display=False) as counter:
        forward = _Forward(counter, model)
        with forward.watching(blocks):
            loss, _ = loss_of(task, model, batch, where="profiling")
        loss.backward()  # type: ignore[no-untyped-call]
        ratio = counter.get_total_flops() / max(1, forward.flops.total()) - 1
    num_parameters = _num_parameters(model, blocks)
    num_rows = len(next(iter(batch.values())))
    return [
        BlockProfile(
            name=name,
            num_parameters=num_parameters[name],
            forward_flops=forward.flops[name] / num_rows,
            backward_flops=forward.flops[name] * max(ratio, 0.0) / num_rows,
            saved_bytes=forward.saved_bytes[name] / num_rows,
        )
        for name in (*blocks, OUTSIDE)
    ]


def _chain(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> block, in the order of the model."""
    chain: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            chain |= {f"{name}.{position}": element for position, element in child.named_children()}
        else:
            chain[name] = child
    return chain


def _num_parameters(model: nn.Module, blocks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Parameters of each block; one that is shared counts where it comes first."""
    seen: set[int] = set()
    num_parameters = {}
    for name, block in (*blocks.items(), (OUTSIDE, model)):
        new = [parameter for parameter in block.parameters() if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in new}
        num_parameters[name] = sum(parameter.numel() for parameter in new)
    return num_parameters


def _merged(blocks: list[BlockProfile]) -> tuple[BlockProfile, ...]:
    runs = [list(run) for _, run in groupby(blocks, key=lambda block: block.model_copy(update={"name": ""}))]
    return tuple(run[0].model_copy(update={"count": len(run)}) for run in runs)


def _identity(tensor: Tensor) -> int:
    """Tensors that share memory have the same identity, on the meta device too, where addresses are all zero."""
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return identity
