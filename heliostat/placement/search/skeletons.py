"""Pipelines in outline, ranked before anything is cut: which kinds form stages together, how many, on what shape. Pure.

Every set of kinds that works together divides its devices into equal stages. If blocks could be cut anywhere, all
stages would take the same time, so

    round = work / sum of the stages' rates
    step  ~ rounds x round + (stages - 1) x (round's fill + handing on) + tail

which ranks a million combinations in a second; the best are then cut (`cutting`).
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from heliostat.placement.constraints import Constraints
from heliostat.placement.search.chain import Bools, Floats, Ints
from heliostat.placement.search.judge import WAITING
from heliostat.placement.search.menu import Menu
from heliostat.placement.search.outline import Style
from heliostat.placement.search.rates import Rates
from heliostat.placement.search.varied import varied

MOST_COMBINATIONS = 4_000
"""Of one division of the kinds; beyond, every set of kinds has fewer ways."""
FEWEST_OF_A_DIVISION = 16
"""Kept of one division of the kinds, for each size of round."""
NUMBERS_OF_STAGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""Of one set of kinds; and as many as there is room for."""


class Skeleton(NamedTuple):
    """Equal stages of each set of kinds."""

    estimate: float
    round_size: int
    style: Style
    groups: tuple[tuple[int, int], ...]
    """Shape, as its place in `Rates.shapes`, and how many stages have it."""
    kinds: frozenset[int]
    """Those that have stages."""

    def order(self) -> tuple[object, ...]:
        """The best first."""
        return self[:4]


class _Ways(NamedTuple):
    """How one set of kinds may be divided: each way so many equal stages on one shape."""

    shape: Floats
    num_stages: Floats
    rate: Floats
    """Whole chains per second of all its stages together."""
    tail_s: Floats
    """For a whole chain."""
    hop_s: Floats
    price: Floats

    def take(self, places: Ints) -> "_Ways":
        """The ways at `places`."""
        return _Ways._make(column[places] for column in self)


class _Pipelines(NamedTuple):
    """Every way of every set of kinds of a division, combined: one row for each pipeline."""

    ways: tuple[Ints, ...]
    """Of each set, which way."""
    num_stages: Floats
    round_s: Floats
    tail_s: Floats
    hop_s: Floats
    price: Floats


def skeletons(
    rates: Rates, menu: Menu, wanted: Constraints, styles: Sequence[Style], round_size: int, most: int
) -> list[Skeleton]:
    """The `most` best by estimate, over all divisions of the kinds and all `styles`."""
    ways = _ways_by_kinds(rates, menu, wanted)
    divisions = list(_divisions(list(ways)))
    each = max(FEWEST_OF_A_DIVISION, 4 * most // len(divisions))
    found: list[Skeleton] = []
    for division in divisions:
        kinds = frozenset[int]().union(*division)
        own: list[Skeleton] = []
        limit = int(MOST_COMBINATIONS ** (1 / len(division)))
        parts = [_best(ways[kinds], limit) for kinds in division]
        pipelines = _combined(parts)
        for style in styles:
            step_s = np.where(_allowed(rates, wanted, style, pipelines), _step_s(rates, style, pipelines), np.inf)
            worth = wanted.worths(step_s, pipelines.price)
            worst = own[each - 1].estimate if len(own) >= each else np.inf
            near = np.flatnonzero(np.isfinite(step_s) & (worth < worst))
            for at in near[np.argsort(worth[near], kind="stable")[:each]].tolist():
                groups = tuple(
                    (int(part.shape[way[at]]), int(part.num_stages[way[at]]))
                    for part, way in zip(parts, pipelines.ways, strict=True)
                )
                own.append(Skeleton(float(worth[at]), round_size, style, groups, kinds))
            own.sort(key=Skeleton.order)
            del own[each:]
        found += own
    found.sort(key=Skeleton.order)
    return varied(found, most, lambda one: one.kinds)


def orders(skeleton: Skeleton) -> Iterator[tuple[int, ...]]:
    """The shapes of its stages, the first first, in every order of the sets of kinds."""
    for order in permutations(skeleton.groups):
        yield tuple(shape for shape, count in order for _ in range(count))


def _combined(parts: Sequence[_Ways]) -> _Pipelines:
    grids = np.meshgrid(*(np.arange(len(part.shape)) for part in parts), indexing="ij")
    ways = tuple(grid.ravel() for grid in grids)
    rows = [part.take(own) for part, own in zip(parts, ways, strict=True)]
    rate = np.sum([row.rate for row in rows], axis=0)
    return _Pipelines(
        ways=ways,
        num_stages=np.sum([row.num_stages for row in rows], axis=0),
        round_s=1 / rate,
        # a stage's part of the chain is its part of the rate
        tail_s=np.max([row.tail_s * row.rate / row.num_stages / rate for row in rows], axis=0),
        hop_s=np.max([row.hop_s for row in rows], axis=0),
        price=np.sum([row.price for row in rows], axis=0),
    )


def _step_s(rates: Rates, style: Style, pipelines: _Pipelines) -> Floats:
    count, round_s = pipelines.num_stages, pipelines.round_s
    fill_s = round_s * WAITING[style.schedule] / style.chunks
    # a stage holds whole blocks: the slowest has on average half a block more than its part
    uneven = 1 + 0.5 * count / rates.num_blocks * (count > 1)
    way_s = (count - 1) * (fill_s + 2 * pipelines.hop_s * style.chunks)
    return rates.num_rounds * round_s * uneven + way_s + pipelines.tail_s


def _allowed(rates: Rates, wanted: Constraints, style: Style, pipelines: _Pipelines) -> Bools:
    count = pipelines.num_stages
    allowed = count * style.chunks <= rates.num_blocks
    if style.schedule != "1f1b":
        allowed &= count > 1
    if style.schedule == "interleaved":
        allowed &= rates.num_rounds % np.maximum(count, 1) == 0
    if wanted.pins.num_stages is not None:
        allowed &= count == wanted.pins.num_stages
    return allowed


def _ways_by_kinds(rates: Rates, menu: Menu, wanted: Constraints) -> dict[frozenset[int], _Ways]:
    """For each set of kinds its ways: any shape, as many stages as there is room for or fewer."""
    needs = np.array([menu.need(shape) for shape in rates.shapes])
    room = np.floor(np.where(needs > 0, menu.room / np.maximum(needs, 1), np.inf).min(axis=1))
    prices = needs[:, menu.device_rows] @ np.array(wanted.prices(menu.ground.kinds))
    found: dict[frozenset[int], list[tuple[float, ...]]] = {}
    for number, shape in enumerate(rates.shapes):
        kinds = frozenset(kind for kind, count in enumerate(shape.counts) if count)
        work_s, tail_s, hop_s = rates.work_s[number], rates.tail_s[number], rates.hop_s[number]
        most = min(int(room[number]), rates.num_blocks)
        found.setdefault(kinds, []).extend(
            (number, count, count / work_s, tail_s, hop_s, count * prices[number])
            for count in sorted({most, *(one for one in NUMBERS_OF_STAGES if one <= most)})
        )
    return {kinds: _Ways(*np.array(ways).T) for kinds, ways in found.items()}


def _best(ways: _Ways, most: int) -> _Ways:
    """At most so many ways: for each number of stages in turn the fastest, then the second, ..."""
    if len(ways.shape) <= most:
        return ways
    order = np.lexsort((-ways.rate, ways.num_stages))
    _, begin = np.unique(ways.num_stages[order], return_index=True)
    rank = np.arange(len(order)) - np.repeat(begin, np.diff(np.append(begin, len(order))))
    kept = order[np.lexsort((-ways.rate[order], rank))][:most]
    return ways.take(kept)


def _divisions(sets: Sequence[frozenset[int]]) -> Iterator[tuple[frozenset[int], ...]]:
    """All choices of sets that have no kind in common."""
    ordered = sorted(sets, key=sorted)

    def more(chosen: tuple[frozenset[int], ...], at: int) -> Iterator[tuple[frozenset[int], ...]]:
        for place in range(at, len(ordered)):
            if all(ordered[place].isdisjoint(one) for one in chosen):
                longer = (*chosen, ordered[place])
                yield longer
                yield from more(longer, place + 1)

    yield from more((), 0)
