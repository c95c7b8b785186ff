"""One recorded forward and backward pass of a model."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from heliostat.placement.workload import WorkloadProfile
from heliostat.train.profiling.assemble import chain_of
from heliostat.train.profiling.kernels import accelerator_kernels
from heliostat.train.profiling.parts import parts_of
from heliostat.train.profiling.record import Recorder
from heliostat.train.profiling.watch import watched

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


def run(model: nn.Module, batch: Batch, loss: Loss, *, name: str, seq_len: int) -> WorkloadProfile:
    """The model's chain; on the meta device equal parts run once.

    Args:
        model: where it is to run, in the mode that it is in.
        batch: tensors, samples along their first dimension; they are moved to the model.
        loss: a scalar with a gradient.
        name: of the workload.
        seq_len: tokens per sample.
    """
    device = next(model.parameters()).device
    moved = {key: tensor.to(device) for key, tensor in batch.items()}
    recorder = Recorder(model, moved.values())
    with accelerator_kernels(recorder), watched(recorder, parts_of(model), copies=device.type == "meta"):
        recorder.backward_pass(recorder.forward_pass(lambda: loss(model, moved)))
    model.zero_grad(set_to_none=True)
    blocks, tied = chain_of(recorder, model, len(next(iter(moved.values()))))
    return WorkloadProfile(name=name, seq_len=seq_len, blocks=blocks, tied_parameters=tied)


def meta_twin(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, made without copying a value."""
    held = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(tensor): _on_meta(tensor) for tensor in held}
    return deepcopy(model, memo)


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
