"""Small changes to a plan: one cut by one block, one option of a stage, one replica, the order, the rounds. Pure.

The first change for the better is taken and all are tried again, until none helps (hill climbing). It mends what the
ranking on typical links got wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, combinations
from typing import TypeVar

import numpy as np

from heliostat.placement.constraints import Pins
from heliostat.placement.ground import Shape
from heliostat.placement.search.chain import Chain
from heliostat.placement.search.judge import Judge, Verdict
from heliostat.placement.search.menu import options_of, suits
from heliostat.placement.search.outline import Drafter, Outline, Style, outline_of

T = TypeVar("T")
FEW_STAGES = 8
"""Up to which any two stages may change places, not neighbours alone."""
LONG_PASSES = 1000
"""Of a pipeline that is simulated only if its closed form promises something."""
DOUBT = 0.05
"""By how much the closed form may be wrong about another schedule."""


def improve(
    start: Verdict, judge: Judge, drafter: Drafter, styles: Sequence[Style], most: int, expired: Callable[[], bool]
) -> None:
    """Change `start` for the better until nothing helps, or `most` changes were tried."""
    now, tried = start, 0
    while now.draft.round_size:
        better = None
        long = 2 * now.draft.num_rounds * len(now.draft.stages) > LONG_PASSES
        bar = judge.guess(now.draft) if long else 0.0
        for outline in _changes(outline_of(now.draft), drafter, styles):
            draft = drafter.draft(outline)
            if draft is None or draft in judge.verdicts:
                continue
            tried += 1
            if tried > most or expired():
                return
            if long and judge.guess(draft) >= bar * (1 + (DOUBT if draft.schedule != now.draft.schedule else 0)):
                continue
            verdict = judge.try_(draft)
            if verdict is not None and verdict.worth < now.worth * (1 - 1e-9):
                better = verdict
                break
        if better is None:
            return
        now = better


def _changes(here: Outline, drafter: Drafter, styles: Sequence[Style]) -> Iterator[Outline]:
    yield from _cuts(here, drafter.costs.chain)
    for place, (shape, option) in enumerate(zip(here.shapes, here.options, strict=True)):
        for other in options_of(drafter.menu.pins):
            if suits(other, shape, drafter.menu.pins) and sum(a != b for a, b in zip(option, other, strict=True)) == 1:
                yield here._replace(options=_with(here.options, place, other))
    for style in styles:
        if len(here.shapes) > 1 and style[:2] != here.style[:2]:
            yield here._replace(style=Style(*style[:2]))
    for size in (here.round_size * 2, here.round_size // 2):
        if 1 <= size <= drafter.global_batch:
            yield here._replace(round_size=size)
    yield from _shapes(here, drafter.menu.pins)


def _cuts(here: Outline, chain: Chain) -> Iterator[Outline]:
    openings = chain.openings if here.style.chunks == 1 else np.arange(chain.num_blocks + 1)
    for place in range(len(here.cuts) - 1):
        now = int(np.searchsorted(openings, here.cuts[place]))
        for cut in openings[[now - 1, now + 1]].tolist():
            low = here.cuts[place - 1] if place else 0
            if low < cut < here.cuts[place + 1]:
                yield here._replace(cuts=_with(here.cuts, place, cut))


def _shapes(here: Outline, pins: Pins) -> Iterator[Outline]:
    for place, other in combinations(range(len(here.shapes)), 2):
        if here.shapes[place] != here.shapes[other] and (other == place + 1 or len(here.shapes) <= FEW_STAGES):
            yield _swapped(here, place, other)
            yield _moved(here, place, other)
    for place, shape in enumerate(here.shapes):
        for kind, count in enumerate(shape.counts):
            for step in (1, -1):
                counts = _with(shape.counts, kind, count + step)
                if count + step >= 0 and any(counts):
                    changed = Shape(counts, shape.tensor)
                    zero = 0 if changed.width == 1 else pins.zero or here.options[place].zero
                    options = _with(here.options, place, here.options[place]._replace(zero=zero))
                    yield here._replace(shapes=_with(here.shapes, place, changed), options=options)


def _swapped(here: Outline, place: int, other: int) -> Outline:
    """Two stages' devices and options, the cuts as they were."""
    shapes, options = list(here.shapes), list(here.options)
    shapes[place], shapes[other] = shapes[other], shapes[place]
    options[place], options[other] = options[other], options[place]
    return here._replace(shapes=tuple(shapes), options=tuple(options))


def _moved(here: Outline, place: int, other: int) -> Outline:
    """Two stages change places, their numbers of blocks with them."""
    lengths = [end - begin for begin, end in zip((0, *here.cuts[:-1]), here.cuts, strict=True)]
    lengths[place], lengths[other] = lengths[other], lengths[place]
    return _swapped(here, place, other)._replace(cuts=tuple(accumulate(lengths)))


def _with(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])
