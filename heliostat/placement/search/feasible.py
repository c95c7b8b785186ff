"""Whether anything fits into the memory of the devices, and what. Pure.

Only the ways to run a stage that need the least memory are asked about, and stages are as long as the memory allows.
The more stages come after a stage, the more micro-batches it holds; so pipelines are grown from the last stage, and of
those that take equal devices the one that has come furthest is kept.
"""

from collections.abc import Iterator

from heliostat.placement.constraints import Pins
from heliostat.placement.search.costs import Options
from heliostat.placement.search.growth import Growth
from heliostat.placement.search.judge import Judge, Verdict
from heliostat.placement.search.menu import RECOMPUTE, options_of
from heliostat.placement.search.outline import Drafter, Outline, Style
from heliostat.placement.search.space import Space

MOST_LABELS = 600
MOST_JUDGED = 4
"""Of one size of round and one schedule: the tables follow `predict`, all but for rounding."""


def first_that_fits(space: Space, judge: Judge, drafter: Drafter) -> Verdict | None:
    """Some plan that fits; None if there is none."""
    if not _could_fit(space):
        return None
    drafts = filter(None, map(drafter.draft, _outlines(space)))
    return next(filter(None, map(judge.try_, drafts)), None)


def fits(space: Space) -> bool:
    """Whether any plan does."""
    judge, drafter = Judge(space.costs, space.wanted), Drafter(space.costs, space.menu, space.wanted.global_batch)
    return first_that_fits(space, judge, drafter) is not None


def _could_fit(space: Space) -> bool:
    """Whether all devices together hold what stays through a step, divided over all of them."""
    execution, offload = space.wanted.execution, space.pins.offload
    states = execution.state_bytes if offload is False else 0.0
    per_parameter = execution.parameter_bytes + execution.accumulate_bytes + states
    room = sum(
        count * max(0.0, memory - execution.context_bytes)
        for count, memory in zip(space.ground.num_devices, space.ground.memory_bytes, strict=True)
    )
    return room >= space.chain.workload.num_parameters * per_parameter


def _outlines(space: Space) -> Iterator[Outline]:
    options = _leanest(space.pins)
    pinned = space.pins.schedule is not None
    # 1F1B holds the fewest activations of all schedules
    styles = [*space.styles(), *space.counted_styles()] if pinned else [Style("1f1b")]
    for size in space.round_sizes():
        shapes = space.shapes(size)
        if not shapes:
            continue
        tables = space.tables_of(shapes, size, options)
        for group in space.groups(tables):
            for style in styles:
                growth = Growth(space.menu, space.wanted, tables, style, group, just_fit=True)
                for _, outline in growth.grow(float("inf"), MOST_LABELS, MOST_JUDGED, lambda: False):
                    yield outline


def _leanest(pins: Pins) -> Options:
    """The ways to run a stage of which no other needs less memory than each, whatever the stage."""
    every = options_of(pins)
    recompute = max((option.recompute for option in every), key=RECOMPUTE.index)
    offload = any(option.offload for option in every)
    return tuple(option for option in every if (option.recompute, option.offload) == (recompute, offload))
