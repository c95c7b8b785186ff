"""Where to cut the chain for stages whose shapes are known: the least seconds a round that all of them can keep. Pure.

From the last stage to the first each takes as many blocks as fit in the time and into its memory; halving finds the
least time for which the chain is used up (probe and bisection: Pinar and Aykanat 2004). The first stage then has what
is left.
"""

from collections.abc import Sequence

import numpy as np

from heliostat.placement.schedule import most_in_flight, order
from heliostat.placement.search.chain import Chain
from heliostat.placement.search.outline import Style
from heliostat.placement.search.tables import Choice, Tables

HALVINGS = 12


class Cutter:
    """One size of round."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.chain: Chain = tables.chain
        self._in_flight: dict[tuple[object, ...], float] = {}

    def cut(self, shapes: Sequence[int], style: Style) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Where the stages on `shapes` end and their options; None if they do not hold the chain.

        Args:
            shapes: of the stages, the first first, as places in the tables.
            style: the schedule.
        """
        number = len(shapes)
        single = number == 1
        choices = [
            self.tables.choices(
                1.0 if single else self.in_flight(style, place, number), single=single, schedule=style.schedule,
                chunks=style.chunks,
            )[0]
            for place in range(number)
        ]  # fmt: skip
        pinned = self.tables.pins.cuts
        best = self._halved(shapes, choices, style.chunks) if pinned is None else self._pinned(shapes, choices, pinned)
        if best is None:
            return None
        begins = (0, *best[:-1])
        options = tuple(
            int(choice.option[shape, self.chain.part_of[begin, end]])
            for choice, shape, begin, end in zip(choices, shapes, begins, best, strict=True)
        )
        return best, options

    def in_flight(self, style: Style, place: int, number: int) -> float:
        """Micro-batches that stage `place` of `number` holds."""
        rounds = self.tables.num_rounds
        if style.schedule in {"none", "1f1b"}:
            return min(number - place, rounds)
        if style.schedule == "gpipe":
            return rounds
        key = (style, place, number)
        if key not in self._in_flight:
            steps = order(style.schedule, place, number, min(rounds, 4 * number), style.chunks)
            self._in_flight[key] = most_in_flight(steps) / style.chunks
        return self._in_flight[key]

    def _pinned(
        self, shapes: Sequence[int], choices: Sequence[Choice], cuts: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """The cuts that are pinned; None if the stages do not hold what they would get."""
        ends = (*cuts, self.chain.num_blocks)
        if len(ends) != len(shapes):
            return None
        stages = zip(shapes, choices, (0, *cuts), ends, strict=True)
        return ends if all(self._holds(*stage) for stage in stages) else None

    def _holds(self, shape: int, choice: Choice, first: int, end: int) -> bool:
        fits = np.isfinite(choice.work_s[shape, self.chain.part_of[first, end]])
        return bool(fits) and self.tables.allowed.stage(first, end, self.tables.shapes[shape])

    def _halved(self, shapes: Sequence[int], choices: Sequence[Choice], chunks: int) -> tuple[int, ...] | None:
        """The best cuts."""
        high = self._enough(shapes, choices, chunks)
        if high is None:
            return None
        low, best = 0.0, self._fill(shapes, choices, chunks, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            cuts = self._fill(shapes, choices, chunks, middle)
            low, high = (middle, high) if cuts is None else (low, middle)
            best = cuts or best
        return best

    def _enough(self, shapes: Sequence[int], choices: Sequence[Choice], chunks: int) -> float | None:
        """Seconds that are enough; None if the memory is not."""
        high = float(self.tables.forward_s[list(shapes)].max() + self.tables.backward_s[list(shapes)].max())
        return high if self._fill(shapes, choices, chunks, high) else None

    def _fill(
        self, shapes: Sequence[int], choices: Sequence[Choice], chunks: int, limit_s: float
    ) -> tuple[int, ...] | None:
        """The cuts of the fullest stages, the last first filled; None if blocks are left over."""
        end, ends = self.chain.num_blocks, []
        for place in range(len(shapes) - 1, -1, -1):
            work = choices[place].work_s[shapes[place]]
            allowed = self.tables.allowed.may_hold(self.tables.shapes[shapes[place]])
            parts = self.chain.part_of
            low, high = self._least_begin(place, chunks), end
            while low < high:
                middle = (low + high) // 2
                if work[parts[middle, end]] <= limit_s and allowed[middle, end]:
                    high = middle
                else:
                    low = middle + 1
            if chunks == 1:
                high = int(self.chain.next_opening[high])
            if end - high < chunks:
                return None
            ends.append(end)
            end = high
        return tuple(reversed(ends)) if end == 0 else None

    def _least_begin(self, place: int, chunks: int) -> int:
        """Where stage `place` begins at least, for those before it to have a block for each of their chunks."""
        if chunks > 1:
            return place * chunks
        openings = self.chain.openings
        return int(openings[min(place, len(openings) - 1)])
