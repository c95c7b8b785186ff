"""Contradictions of what is pinned for some blocks: with the model, the cluster, other pins, one another. Pure."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.constraints import PartPin, Pins
from heliostat.placement.search.menu import DEGREES
from heliostat.placement.workload import WorkloadProfile


def contradictions(workload: WorkloadProfile, cluster: ClusterSpec, pins: Pins) -> Iterator[str]:
    """Every one in words."""
    yield from _of_the_cuts(workload, pins)
    for part in pins.parts:
        yield from _of_the_kinds(part, cluster, pins)
        yield from _of_the_degrees(part, workload, cluster, pins)
    for one, other in combinations(pins.parts, 2):
        if _meet(one, other, pins):
            yield from _between(one, other)
        elif pins.equal_widths and one.kind != other.kind and None not in {one.kind, other.kind}:
            yield f"equal_widths, but {one.source} asks for {one.kind} and {other.source} for {other.kind}"
    if pins.names_blocks and pins.schedule == "interleaved":
        yield "schedule interleaved gives a stage blocks from all over the chain, but `cuts` or `parts` name blocks"


def _of_the_cuts(workload: WorkloadProfile, pins: Pins) -> Iterator[str]:
    if pins.cuts is None:
        return
    number = len(pins.cuts) + 1
    if pins.cuts and pins.cuts[-1] >= workload.num_blocks:
        yield f"a stage is to begin at block {pins.cuts[-1]}, the last block is {workload.num_blocks - 1}"
    else:
        for cut in sorted(set(pins.cuts) - set(workload.cuts)):
            yield f"a stage is to begin at block {cut}, but later blocks use what earlier ones made past its input"
    if pins.num_stages not in {None, number}:
        yield f"num_stages {pins.num_stages}, but `cuts` make {number}"
    if pins.schedule == "none" and number > 1:
        yield f"schedule none is that of one stage, but `cuts` make {number}"


def _of_the_kinds(part: PartPin, cluster: ClusterSpec, pins: Pins) -> Iterator[str]:
    if part.kind is None:
        return
    there = {device.kind for node in cluster.nodes for device in node.devices}
    if not any(map(part.takes_kind, there)):
        yield f"{part.source} asks for {part.kind}, which is not in the cluster; it has {', '.join(sorted(there))}"
    elif pins.kinds is not None and not any(map(part.takes_kind, pins.kinds)):
        yield f"{part.source} asks for {part.kind}, but kinds are {', '.join(pins.kinds)}"


def _of_the_degrees(part: PartPin, workload: WorkloadProfile, cluster: ClusterSpec, pins: Pins) -> Iterator[str]:
    blocks = [block for block in workload.blocks for _ in range(block.count)]
    if part.end_block > len(blocks):
        yield f"{part.source} names block {part.end_block - 1}, the last block is {len(blocks) - 1}"
        return
    asked = f"{part.source} asks for tensor_parallel {part.degrees}"
    if pins.tensor_parallel is not None and not part.takes_tensor(pins.tensor_parallel):
        yield f"{asked}, but it is pinned to {pins.tensor_parallel}"
    if not any(map(part.takes_tensor, DEGREES)):
        yield f"{asked}, which is no power of two up to {DEGREES[-1]}"
    groups = [Counter(device.kind for device in node.devices) for node in cluster.nodes]
    largest = max((many for one in groups for kind, many in one.items() if part.takes_kind(kind)), default=1)
    if part.least_tensor > largest:
        yield f"{asked}, which needs so many devices of a kind in a node, the most is {largest}"
    for first, end in pairwise((0, *(pins.cuts or ()), len(blocks))):
        if pins.cuts is not None and (end <= part.first_block or part.end_block <= first):
            continue
        # the planner divides a stage, and without given cuts the whole model, no further than its narrowest block
        narrow = min(blocks[first:end], key=lambda block: block.largest_tensor_parallel, default=None)
        if narrow is not None and narrow.largest_tensor_parallel < part.least_tensor:
            where = "" if pins.cuts is None else " of its stage"
            yield f"{asked}, but block {narrow.name}{where} allows {narrow.largest_tensor_parallel}"


def _meet(one: PartPin, other: PartPin, pins: Pins) -> bool:
    """Whether some stage must hold blocks of both."""
    if one.first_block < other.end_block and other.first_block < one.end_block:
        return True
    edges = (0, *pins.cuts, max(one.end_block, other.end_block)) if pins.cuts is not None else ()
    return any(
        max(one.first_block, other.first_block) < end and first < min(one.end_block, other.end_block)
        for first, end in pairwise(edges)
    )


def _between(one: PartPin, other: PartPin) -> Iterator[str]:
    if one.kind is not None and other.kind is not None and not one.takes_kind(other.kind):
        yield f"one stage, but {one.source} asks for {one.kind} and {other.source} for {other.kind}"
    low, high = (one, other) if one.least_tensor >= other.least_tensor else (other, one)
    if high.most_tensor is not None and high.most_tensor < low.least_tensor:
        yield (
            f"one stage, but {low.source} asks for tensor_parallel {low.degrees} and {high.source} for {high.degrees}"
        )
