"""A model's blocks by name: which of its modules make each block of the plan, and which parameters each block uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from heliostat.train.profiling.kernels import accelerator_kernels
from heliostat.train.profiling.links import Link, links_of
from heliostat.train.profiling.parts import parts_of
from heliostat.train.profiling.record import Recorder
from heliostat.train.profiling.run import Batch, Loss
from heliostat.train.profiling.watch import watched

TensorRole = Literal["column", "row", "partial"]
"""Of a parameter under tensor parallelism: its output features are divided, its input features are, or it is whole and
meets a part of the features, so that its gradient is a part of the sum."""


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """One block of the chain, counted with repetitions: its place in the tuple is its number in every plan."""

    name: str
    modules: tuple[str, ...]
    """Paths of its modules, in the order in which they run."""
    parameters: frozenset[str]
    """Paths of all parameters that it uses, each by the first of its names; a tied one is used by several blocks."""
    recomputable: bool
    """Whether recomputation covers it."""
    roles: Mapping[str, TensorRole] = field(default_factory=dict)
    """Of the parameters that tensor parallelism divides, by path."""


def canonical_names(model: nn.Module) -> dict[str, str]:
    """For every path of a parameter the first path that leads to it."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def structure_of(model: nn.Module, batch: Batch, loss: Loss) -> tuple[BlockParts, ...]:
    """The blocks of `model`, as `profile_module` counts them.

    Args:
        model: on the meta device, or with values if it looks at them; it is run once, forward.
        batch: tensors, samples along their first dimension; they are moved to the model.
        loss: called with the model and the batch.
    """
    device = next(model.parameters()).device
    moved = {key: tensor.to(device) for key, tensor in batch.items()}
    recorder = Recorder(model, moved.values())
    with accelerator_kernels(recorder), watched(recorder, parts_of(model), copies=device.type == "meta"):
        recorder.forward_pass(lambda: loss(model, moved))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return tuple(_block(link, names) for link in links_of(recorder.segments))


def _block(link: Link, names: Mapping[int, str]) -> BlockParts:
    parts = [segment.part for segment in link.segments if segment.part is not None]
    used = [parameter for part in parts for parameter in part.module.parameters()]
    used += [weight for call in link.calls for weight in call.weights]
    return BlockParts(
        name=link.name,
        modules=tuple(dict.fromkeys(part.name for part in parts)),
        parameters=frozenset(names[id(one)] for one in used),
        recomputable=link.is_element,
    )
