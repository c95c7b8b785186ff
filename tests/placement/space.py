"""The plan space in small: strategies that the planner can emit, chosen so that every pair of techniques is there.

All come from what the search itself chooses from: its menu of shapes and options, its schedules and sizes of round, and
its drafter, which every pipeline passes. What a change adds to the planner is in here without being written down.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import combinations, cycle, islice, product
from math import gcd
from typing import TypeVar

from heliostat.placement.constraints import Constraints
from heliostat.placement.ground import Shape
from heliostat.placement.rounds import samples_in
from heliostat.placement.search.costs import Option
from heliostat.placement.search.draft import strategy_of
from heliostat.placement.search.menu import options_of, suits
from heliostat.placement.search.outline import Drafter, Outline, Style
from heliostat.placement.search.space import Space
from heliostat.placement.search.uneven import uneven_drafts
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.train.execution import RUNNABLE, execution_of
from tests.placement.search.cases import A100, V100, Box, cluster

LEAST = 40
SAMPLES = 30
"""Outlines of every choice of shapes and every schedule."""
KINDS = ("cpu", "cpu@0.50")
T = TypeVar("T")
Feature = tuple[str, object]


def plan_space(num_ranks: int, workload: WorkloadProfile, global_batch: int) -> list[Strategy]:
    """Distinct plans for `num_ranks` devices, at least `LEAST` of them, in which every pair of features is that can be.

    The same arguments give the same plans. Devices are of the kinds `KINDS`, the second half as fast.
    """
    candidates = list(_strategies(num_ranks, workload, global_batch))
    own = [features(one) for one in candidates]
    chosen: list[int] = []
    for size, most in ((2, len(candidates)), (3, LEAST)):
        _cover(own, size, chosen, most)
    return [Strategy.model_validate(candidates[at].model_dump()) for at in chosen]


def _cover(candidates: Sequence[frozenset[Feature]], size: int, chosen: list[int], most: int) -> None:
    """Add to `chosen`, up to `most`, whatever has the most combinations of `size` features that are not there yet."""
    groups = [set(combinations(sorted(own, key=str), size)) for own in candidates]
    covered = set[tuple[Feature, ...]]().union(*(groups[at] for at in chosen))
    heap = [(-len(own), at) for at, own in enumerate(groups)]
    heapify(heap)
    while heap and len(chosen) < most:
        _, at = heappop(heap)
        new = groups[at] - covered
        if heap and -len(new) > heap[0][0]:
            if new:
                heappush(heap, (-len(new), at))
        elif new:
            covered |= new
            chosen.append(at)


def features(strategy: Strategy) -> frozenset[Feature]:
    """What a plan is like: its techniques, and in which ways it is uneven."""
    stages = strategy.stages
    wide = [stage for stage in stages if len(stage.replicas) > 1]
    last = strategy.num_micro_batches - 1
    own = {samples_in(one, last) / one.micro_batch for stage in stages for one in stage.replicas}
    found: list[Feature] = [
        ("schedule", strategy.schedule),
        ("chunks", strategy.chunks),
        ("stages", len(stages)),
        ("rounds", min(last + 1, 2)),
        ("last round", "empty" if 0 in own else "whole" if own == {1} else "smaller"),
        ("data parallel", _of([len(stage.replicas) for stage in stages])),
        ("tensor parallel", _of([stage.tensor_parallel for stage in stages])),
        ("recompute", _of([stage.recompute for stage in stages])),
        ("zero", _of([stage.zero for stage in wide]) if wide else 0),
        ("shares", "uneven" if any(len({one.num_samples for one in stage.replicas}) > 1 for stage in wide) else "even"),
        ("kinds", _of([tuple(dict.fromkeys(one.device_kind for one in stage.replicas)) for stage in stages])),
        ("cuts", "uneven" if len({stage.end_block - stage.first_block for stage in stages}) > 1 else "even"),
    ]
    if any(stage.sequence_parallel for stage in stages):
        found.append(("sequence parallel", True))
    return frozenset(found)


def _of(values: Sequence[object]) -> object:
    """The value of all stages, or that they differ."""
    return values[0] if len(set(values)) == 1 else "several"


def _strategies(num_ranks: int, workload: WorkloadProfile, global_batch: int) -> Iterator[Strategy]:
    pins = RUNNABLE.model_copy(update={"use_all": True})
    wanted = Constraints(global_batch=global_batch, execution=execution_of(), pins=pins)
    for slow in range(num_ranks // 2 + 1):
        boxes = [Box(A100, num_ranks - slow), *([Box(V100, slow)] if slow else [])]
        space = Space(workload, cluster(tuple(boxes)), wanted)
        drafter = Drafter(space.costs, space.menu, global_batch)
        drafts = [draft for outline in _outlines(space, num_ranks) if (draft := drafter.draft(outline)) is not None]
        for shape in space.menu.shapes(global_batch):
            if shape.width * shape.tensor == num_ranks:
                options = [option for option in options_of(pins) if suits(option, shape, pins)]
                drafts += [draft for _, draft in uneven_drafts(space.costs, shape, options, global_batch, None)]
        for draft in dict.fromkeys(drafts):
            yield strategy_of(draft, KINDS, global_batch, wanted.execution)


def _outlines(space: Space, num_ranks: int) -> Iterator[Outline]:
    """Of every choice of shapes under every schedule a few, spread over all combinations of the rest."""
    sizes = space.round_sizes()
    for shapes in _all_shapes(space, num_ranks):
        styles = space.any_styles() if len(shapes) > 1 else [Style("1f1b")]
        choices = _options(space, shapes)
        for style in styles:
            every = list(product(choices, _cuts(space, len(shapes), style.chunks), sizes))
            yield from (Outline(cuts, shapes, options, style, size) for options, cuts, size in _spread(every))


def _spread(every: Sequence[T]) -> Iterator[T]:
    """Some of `every`, near and far from one another."""
    step = max(1, round(0.618 * len(every)))
    while gcd(step, len(every)) > 1:
        step += 1
    return (every[at * step % len(every)] for at in range(min(SAMPLES, len(every))))


def _all_shapes(space: Space, num_ranks: int) -> Iterator[tuple[Shape, ...]]:
    menu = space.menu.shapes(space.wanted.global_batch)
    for many in range(1, min(num_ranks, space.chain.num_blocks) + 1):
        for shapes in product(menu, repeat=many):
            if sum(shape.width * shape.tensor for shape in shapes) == num_ranks and space.menu.has_room(shapes):
                yield shapes


def _options(space: Space, shapes: Sequence[Shape]) -> list[tuple[Option, ...]]:
    """The same for all stages where they may have it, and another for each."""
    every = options_of(space.pins)
    same = [tuple(_nearest(option, shape, space) for shape in shapes) for option in every]
    steps = (1, 3, 5)
    other = [
        tuple(
            _nearest(option, shape, space)
            for option, shape in zip(islice(cycle(every), at, None, step), shapes, strict=False)
        )
        for at, step in product(range(len(every)), steps)
    ]
    return list(dict.fromkeys(same + other))


def _nearest(option: Option, shape: Shape, space: Space) -> Option:
    """`option`, or what is left of it on `shape`."""
    if suits(option, shape, space.pins):
        return option
    return option._replace(
        zero=option.zero if shape.width > 1 else 0, sequence_parallel=option.sequence_parallel and shape.tensor > 1
    )


def _cuts(space: Space, many: int, chunks: int) -> list[tuple[int, ...]]:
    """An even cut, and two that are not; all where stages may begin."""
    size, openings = space.chain.num_blocks, space.chain.openings.tolist()
    even = tuple(round(size * at / many) for at in range(1, many))
    first = tuple(chunks * at for at in range(1, many))
    last = tuple(size - chunks * (many - at) for at in range(1, many))
    found = [tuple(min(openings, key=lambda one: abs(one - cut)) for cut in cuts) for cuts in (even, first, last)]
    return [(*cuts, size) for cuts in dict.fromkeys(found) if list(cuts) == sorted({*cuts} - {0, size})]
