"""From what was recorded to blocks of the workload."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from torch import nn

from heliostat.placement.workload import Block, SavedActivations
from heliostat.train.profiling.cuts import Cuts, find_cuts
from heliostat.train.profiling.links import Flow, Link, links_of, share_parameters
from heliostat.train.profiling.mixture import experts_of
from heliostat.train.profiling.operations import core_memory, operations
from heliostat.train.profiling.record import Call, Recorder

BYTES = 2.0
"""Per element, as `SavedActivations` counts."""


def chain_of(recorder: Recorder, model: nn.Module, num_samples: int) -> tuple[tuple[Block, ...], int]:
    """The chain, equal neighbours as one block with a count; and the parameters of the first that the last uses too."""
    links = links_of(recorder.segments)
    share_parameters(links, model)
    flow = Flow(recorder, links, num_samples)
    blocks: list[Block] = []
    for link in links:
        original = links[flow.place[link.original]] if link.original is not None else None
        if original is None:
            blocks.append(_block(*completed(link, links, flow), flow, is_last=link is links[-1]))
        elif link.glue == original.glue:
            blocks.append(_copied(blocks[original.place], link, original, flow))
        else:
            block = _block(*completed(link, links, flow), flow, is_last=link is links[-1])
            blocks.append(_copied(block, link, original, flow))
    used = {id(weight) for call in links[-1].calls for weight in call.weights}
    first = links[0].parameters if len(links) > 1 else []
    tied = sum(parameter.numel() for parameter in first if id(parameter) in used)
    return _merged(_shareable(blocks)), tied


def completed(link: Link, links: Sequence[Link], flow: Flow) -> tuple[Link, set[int]]:
    """`link` with all of its calls, those of its originals where parts were not run; and memory that others touch."""
    if link.original is None:
        return link, flow.outside(link)
    original = links[flow.place[link.original]]
    full = replace(link, segments=[*original.parts, *(one for one in link.segments if one.part is None)])
    return full, flow.outside(link) | flow.outside(original)


def _block(link: Link, outside: set[int], flow: Flow, *, is_last: bool) -> Block:
    calls = link.calls
    cuts = find_cuts(calls, outside)
    ops = operations(calls, cuts, flow.num_samples)
    own = {id(parameter) for parameter in link.parameters}
    split = {
        id(weight): weight.numel()
        for call, role in cuts.roles.items()
        for weight in call.weights
        if id(weight) in own and (role == "column" or weight.dim() > 1)
    }
    return Block(
        name=link.name,
        num_parameters=sum(parameter.numel() for parameter in link.parameters),
        split_parameters=sum(split.values()),
        ops=ops,
        saved=_saved(link, flow, cuts, is_last=is_last),
        boundary_elements=round(flow.boundary[link.place]),
        carried_elements=round(flow.carried[link.place]),
        tensor_collectives=sum(role == "row" for role in cuts.roles.values()),
        recomputable=link.is_element,
        largest_tensor_parallel=cuts.limit,
        experts=experts_of(calls, flow.num_samples),
    )


def _saved(link: Link, flow: Flow, cuts: Cuts, *, is_last: bool) -> SavedActivations:
    core = core_memory(link.calls)
    kept = {"replicated": 0.0, "split": 0.0, "core": 0.0, "single": 0.0}
    for one in (one for segment in link.segments for one in segment.saved):
        if one.storage in flow.passing:
            continue
        if one.storage in core:
            kept["core"] += BYTES * one.elements
        elif one.storage not in cuts.divided:
            kept["replicated"] += BYTES * one.elements
        elif one.is_single:
            kept["single"] += flow.item_bytes * one.elements
        else:
            kept["split"] += BYTES * one.elements
    work = max((call.work_elements for call in _after_products(link.calls)), default=0.0) if is_last else 0.0
    return SavedActivations(
        **{name: held / flow.num_samples for name, held in kept.items()},
        boundary=BYTES * flow.received[link.place],
        work=flow.item_bytes * work / flow.num_samples,
    )


def _after_products(calls: Sequence[Call]) -> Sequence[Call]:
    """The loss, in the last block: its backward pass comes before anything is freed."""
    products = [number for number, call in enumerate(calls) if call.product is not None]
    return calls[products[-1] + 1 :] if products else calls


def _copied(block: Block, link: Link, original: Link, flow: Flow) -> Block:
    """A block that was not run, because it equals another; with parameters that it shares, it has none of its own.

    Its own input is saved where that of the original is kept elsewhere, as several read it, and the other way round.
    """
    num_parameters = sum(parameter.numel() for parameter in link.parameters)
    own_elements = flow.own_elements(link.parts[0], original.parts[0])
    replicated = block.saved.replicated + BYTES * own_elements / flow.num_samples
    return block.model_copy(
        update={
            "name": link.name,
            "num_parameters": num_parameters,
            "split_parameters": block.split_parameters if num_parameters else 0,
            "saved": block.saved.model_copy(update={"replicated": replicated}),
            "boundary_elements": round(flow.boundary[link.place]),
            "carried_elements": round(flow.carried[link.place]),
        }
    )


def _shareable(blocks: Sequence[Block]) -> list[Block]:
    """A block that nothing divides runs whole on every rank, as many as share the others, if those are most of it."""
    divided = [block for block in blocks if block.largest_tensor_parallel > 1]
    if 2 * sum(block.forward_flops for block in divided) <= sum(block.forward_flops for block in blocks):
        return list(blocks)
    limit = min(block.largest_tensor_parallel for block in divided)
    return [
        block.model_copy(update={"largest_tensor_parallel": limit}) if block.largest_tensor_parallel == 1 else block
        for block in blocks
    ]


def _merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    return tuple(run[0].model_copy(update={"count": len(run)}) for run in _runs(blocks))


def _runs(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Neighbours that are equal; the last of a run may hand on less, as the last reader of what was carried."""
    for _, alike in groupby(blocks, key=lambda block: block.model_copy(update=_UNNAMED)):
        runs = [list(run) for _, run in groupby(alike, key=lambda block: block.boundary_elements)]
        if len(runs) > 1 and len(runs[-1]) == 1 and runs[-1][0].boundary_elements < runs[-2][0].boundary_elements:
            tail = runs.pop()
            runs[-1] += tail
        yield from runs


_UNNAMED = {"name": "", "boundary_elements": 0, "carried_elements": 0}
