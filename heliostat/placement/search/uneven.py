"""One stage whose replicas have shares and micro-batches of their own: uneven data parallelism. Pure.

The least step time in which the replicas can take the global batch between them, found by halving. A replica takes as
many whole micro-batches of one size as fit in the time and a last smaller one. Only without ZeRO 2 and 3, whose
replicas go through every round together.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from heliostat.placement.ground import Shape
from heliostat.placement.search.chain import Ints
from heliostat.placement.search.costs import Costs, Option
from heliostat.placement.search.draft import Draft, DraftStage
from heliostat.placement.search.room import Room
from heliostat.placement.search.shares import Part

HALVINGS = 30
"""A billionth of the step is precise enough."""


class Pace:
    """How many samples a replica gets through in a time."""

    def __init__(self, sizes: Sequence[int], seconds: Sequence[float], largest: int) -> None:
        """Take what some micro-batches take; between them, and up to the `largest` that fits, it is linear."""
        self.sizes, self.seconds = list(sizes), list(seconds)
        if largest > self.sizes[-1]:
            low = 0 if len(self.sizes) == 1 else self.sizes[-2]
            low_s = 0.0 if len(self.sizes) == 1 else self.seconds[-2]
            slope_s = (self.seconds[-1] - low_s) / (self.sizes[-1] - low)
            self.seconds.append(self.seconds[-1] + slope_s * (largest - self.sizes[-1]))
            self.sizes.append(largest)

    @property
    def sample_s(self) -> float:
        """Seconds of a sample at best."""
        return min(seconds / size for size, seconds in zip(self.sizes, self.seconds, strict=True))

    def most(self, limit_s: float) -> tuple[int, int]:
        """The most samples in `limit_s`, and the micro-batch with which they are done."""
        best = (0, 1)
        for size, seconds in zip(self.sizes, self.seconds, strict=True):
            full = int(limit_s / seconds)
            rest = self._single(limit_s - full * seconds, size - 1)
            num_samples = full * size + rest
            if num_samples >= best[0]:
                passes = full + (rest > 0)
                best = (num_samples, -(-num_samples // passes) if passes else 1)
        return best

    def _single(self, limit_s: float, most: int) -> int:
        """The largest micro-batch of at most `most` samples that is done in `limit_s`."""
        place = bisect_right(self.seconds, limit_s)
        if place == 0:
            return 0
        if place == len(self.sizes):
            return min(most, self.sizes[-1])
        part = (limit_s - self.seconds[place - 1]) / (self.seconds[place] - self.seconds[place - 1])
        return min(most, self.sizes[place - 1] + int(part * (self.sizes[place] - self.sizes[place - 1])))


def uneven_drafts(
    costs: Costs, shape: Shape, options: Sequence[Option], global_batch: int, micro_batch: int | None
) -> Iterator[tuple[float, Draft]]:
    """For each of `options` the best shares on `shape` and their seconds, where its memory allows any.

    Args:
        costs: of the blocks.
        shape: of the stage.
        options: how it may run.
        global_batch: samples to share.
        micro_batch: that of the busiest replica, if it is pinned.
    """
    kinds = [kind for kind, count in enumerate(shape.counts) if count]
    own = tuple(option for option in options if not costs.gathers(option))
    if not own:
        return
    paces = [_paces(costs, shape, own, kind, global_batch, micro_batch) for kind in kinds]
    for place, option in enumerate(own):
        chosen = [pace for one in paces if (pace := one[place]) is not None]
        if len(chosen) < len(kinds):
            continue
        parts, seconds = _shared(kinds, shape, chosen, global_batch)
        if parts and micro_batch in {None, max(part.micro_batch for part in parts)}:
            stage = DraftStage(0, costs.chain.num_blocks, shape, option, parts)
            yield seconds, Draft((stage,), "none", 1, 0)


def _paces(
    costs: Costs, shape: Shape, options: tuple[Option, ...], kind: int, global_batch: int, micro_batch: int | None
) -> list[Pace | None]:
    """The pace of a replica on `kind` with each option; None where not even one sample fits."""
    everything = costs.chain.before[-1]
    room = costs.room(shape.tensor, options, shape.width, costs.chain.whole)
    limit = micro_batch or global_batch
    largest = _largest(room, limit, costs.ground.memory_bytes[kind])
    if micro_batch is not None:
        largest = np.where(largest < micro_batch, 0, largest)
    sizes = [micro_batch] if micro_batch else [1 << at for at in range(limit.bit_length())]
    sizes = [size for size in sizes if size <= largest.max(initial=0)]
    if not sizes:
        return [None] * len(options)
    columns, links = [], costs.ground.typical_links(shape)
    for size in sizes:
        forward, backward, _ = costs.all_times(kind, shape.tensor, options, size, links)
        columns.append((everything @ (forward + backward)).tolist())
    found: list[Pace | None] = []
    for place, most in enumerate(largest.tolist()):
        fitting = [(size, column[place]) for size, column in zip(sizes, columns, strict=True) if size <= most]
        own, seconds = [size for size, _ in fitting], [one for _, one in fitting]
        found.append(Pace(own, seconds, most) if fitting else None)
    return found


def _largest(room: Room, limit: int, memory_bytes: float) -> Ints:
    """For each option the most samples of one micro-batch that fit, up to `limit`; 0 where not even one does."""
    low = np.zeros(room.saved.shape[1], dtype=np.int64)
    high = low + limit
    while np.any(low < high):
        middle = (low + high + 1) // 2
        fits = room.holds_one(middle.astype(np.float64), memory_bytes)[0]
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _shared(
    kinds: Sequence[int], shape: Shape, paces: Sequence[Pace], global_batch: int
) -> tuple[tuple[Part, ...], float]:
    """Samples and micro-batch of every replica, one sample at least, and the seconds; nothing if there are too few."""
    counts = [shape.counts[kind] for kind in kinds]
    rate = sum(count / pace.sample_s for count, pace in zip(counts, paces, strict=True))

    def given(limit_s: float) -> int:
        return sum(count * pace.most(limit_s)[0] for count, pace in zip(counts, paces, strict=True))

    first_s = max(pace.seconds[0] for pace in paces)
    low = max(global_batch / rate, first_s)
    high = first_s if given(first_s) >= global_batch else 2 * low
    while given(high) < global_batch:
        low, high = high, 2 * high
    for _ in range(HALVINGS if high > first_s else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if given(middle) >= global_batch else (middle, high)
    chosen = [pace.most(high) for pace in paces]
    spare = sum(count * samples for count, (samples, _) in zip(counts, chosen, strict=True)) - global_batch
    found = []
    for kind, count, (samples, micro) in zip(kinds, counts, chosen, strict=True):
        give, spare = _given(count, samples, spare)
        found += [Part(kind, many, samples - less, min(micro, samples - less)) for less, many in sorted(give.items())]
    return (tuple(found) if not spare else ()), high


def _given(count: int, samples: int, spare: int) -> tuple[dict[int, int], int]:
    """How many of `count` replicas give back how many of their `samples`; and what is left of `spare`."""
    total = min(spare, count * (samples - 1))
    each, more = divmod(total, count)
    give = {each: count - more}
    if more:
        give[each + 1] = more
    return {less: many for less, many in give.items() if many}, spare - total
