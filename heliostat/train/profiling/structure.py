"""A model's blocks by name: which of its modules make each block of the plan, and which parameters each block uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from heliostat.train.profiling.assemble import completed
from heliostat.train.profiling.cuts import find_cuts
from heliostat.train.profiling.divisions import ParameterCut, parameter_cuts
from heliostat.train.profiling.kernels import accelerator_kernels
from heliostat.train.profiling.links import Flow, Link, links_of
from heliostat.train.profiling.parts import parts_of
from heliostat.train.profiling.record import Recorder, Segment
from heliostat.train.profiling.run import Batch, Loss
from heliostat.train.profiling.watch import watched


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
    cuts: Mapping[str, ParameterCut] = field(default_factory=dict)
    """By path the parameters that tensor parallelism divides, and where."""


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
    links = links_of(recorder.segments)
    flow = Flow(recorder, links, len(next(iter(moved.values()))))
    return tuple(_block(link, links, flow, names, recorder.segments) for link in links)


def _block(
    link: Link, links: Sequence[Link], flow: Flow, names: Mapping[int, str], segments: Sequence[Segment]
) -> BlockParts:
    parts = [segment.part for segment in link.segments if segment.part is not None]
    used = [parameter for part in parts for parameter in part.module.parameters()]
    used += [weight for call in link.calls for weight in call.weights]
    full, outside = completed(link, links, flow)
    cuts = parameter_cuts(full.calls, find_cuts(full.calls, outside))
    own = _own_parameters(link, segments)
    return BlockParts(
        name=link.name,
        modules=tuple(dict.fromkeys(part.name for part in parts)),
        parameters=frozenset(names[id(one)] for one in used),
        recomputable=link.is_element,
        cuts={names[own.get(one, one)]: cut for one, cut in cuts.items()},
    )


def _own_parameters(link: Link, segments: Sequence[Segment]) -> dict[int, int]:
    """For every parameter that was recorded in place of one of the link's, that one; by identity."""
    found: dict[int, int] = {}
    for segment in link.parts:
        recorded = segments[segment.original].part if segment.original is not None else None
        if recorded is not None and segment.part is not None:
            theirs = recorded.module.named_parameters(remove_duplicate=False)
            mine = segment.part.module.named_parameters(remove_duplicate=False)
            found |= {id(one): id(own) for (_, one), (_, own) in zip(theirs, mine, strict=True)}
    return found
