"""Pipelines grown stage by stage from the last to the first, all at once: dynamic programming with Pareto fronts. Pure.

A label is a pipeline's end: where it begins, what room it takes, its slowest stage, the way through it, its longest
tail. A label is dropped if another with the same begin, room, first and last shape is worse in nothing, or if its bound
is not below the best plan known; only what is left beyond `most_labels` is dropped on an estimate. Cuts by dynamic
programming: PipeDream (Narayanan et al. 2019), Alpa (Zheng et al. 2022). Labels and their dominance: shortest paths
with resource constraints (Irnich and Desaulniers 2005).

    bound = max over stages (way of the first micro-batch to it + all its rounds) + longest tail
    step  ~ rounds x slowest + way through the others + longest tail
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from heliostat.placement.constraints import Constraints
from heliostat.placement.schedule import most_in_flight, order
from heliostat.placement.search.chain import Bools, Floats, Ints
from heliostat.placement.search.labels import Candidates, Labels, fronts, join
from heliostat.placement.search.menu import Menu
from heliostat.placement.search.outline import Outline, Style
from heliostat.placement.search.tables import Choice, Tables


class Link(NamedTuple):
    """A stage of a pipeline that is grown, and the label it continues."""

    following: int
    table: int
    option: int
    first: int
    end: int


class Growth:
    """One size of round, one style."""

    def __init__(
        self,
        menu: Menu,
        wanted: Constraints,
        tables: Tables,
        style: Style,
        only: Sequence[int] | None = None,
        *,
        just_fit: bool = False,
    ) -> None:
        """Prepare.

        Args:
            menu: holds the room there is.
            wanted: the question.
            tables: costs of the shapes.
            style: the schedule.
            only: places in `tables` of the shapes that may be used; all if None.
            just_fit: find out whether anything fits, whatever it costs: stages are as long as memory allows, and of
                equal room the label is kept that has come furthest.
        """
        self.chain, self.menu, self.wanted, self.tables, self.style = tables.chain, menu, wanted, tables, style
        self.only = np.arange(len(tables.shapes)) if only is None else np.array(only)
        self.num_rounds = tables.num_rounds
        self.num_stages = style.stages or wanted.pins.num_stages
        self.needs = np.array([menu.need(shape) for shape in tables.shapes])
        self.prices = self.needs[:, menu.device_rows] @ np.array(wanted.prices(menu.ground.kinds))
        self.work, self.rate = _rates(tables.device_seconds)
        self.work_before = self.chain.before @ self.work
        self.allowed: Bools | None = None
        """Of each shape, the parts that it may hold, where pins name blocks."""
        if wanted.pins.names_blocks:
            self.allowed = np.array([tables.allowed.may_hold(shape) for shape in tables.shapes])
        self.just_fit = just_fit
        self.num_bounded = 0
        """Ends of pipelines that were given up because no whole one with them beats the best."""
        self._links: list[Link] = []
        self._seen: dict[tuple[int, int], Candidates | None] = {}

    def grow(self, bar: float, most_labels: int, most: int, expired: Callable[[], bool]) -> list[tuple[float, Outline]]:
        """The best pipelines whose bound is below `bar`, and what they are guessed to be worth, the best first.

        Args:
            bar: the worth to beat.
            most_labels: of one number of stages.
            most: how many pipelines.
            expired: whether to stop.
        """
        self._links = []
        labels = Labels.start(self.chain.num_blocks, len(self.menu.room))
        done: list[tuple[float, int]] = []
        limit = self.num_stages or int(self.menu.room[self.menu.device_rows].sum())
        for after in range(min(limit, self.chain.num_blocks)):
            labels = self._next(labels, after, bar, most_labels)
            if not len(labels.begin) or expired():
                break
            whole = labels.begin == 0
            ended = np.flatnonzero(whole & self._may_end(after, labels))
            best = ended[np.argsort(labels.estimate[ended], kind="stable")[:most_labels]]
            done += [(float(labels.estimate[at]), int(labels.link[at])) for at in best]
            labels = labels.take(np.flatnonzero(~whole))
        done.sort()
        return [(estimate, self._outline(self._walk(link))) for estimate, link in done[:most]]

    def _may_end(self, after: int, labels: Labels) -> Bools:
        allowed = np.full(len(labels.begin), self.num_stages is None or after + 1 == self.num_stages)
        if self.wanted.pins.use_all:
            rows = self.menu.device_rows
            allowed &= np.all(labels.room[:, rows] >= self.menu.room[rows] - 0.5, axis=1)
        return allowed

    def _walk(self, link: int) -> list[Link]:
        found = []
        while link >= 0:
            found.append(self._links[link])
            link = self._links[link].following
        return found

    def _outline(self, stages: Sequence[Link]) -> Outline:
        return Outline(
            tuple(link.end for link in stages),
            tuple(self.tables.shapes[link.table] for link in stages),
            tuple(self.tables.options[link.option] for link in stages),
            self.style._replace(stages=None),
            self.tables.round_size,
        )

    def _next(self, labels: Labels, after: int, bar: float, most_labels: int) -> Labels:
        """All labels with one stage more."""
        none = labels.take(np.zeros(0, dtype=np.int64))
        if not len(labels.begin):
            return none
        pairs = self._longest_stages(labels, after) if self.just_fit else self._pairs(labels, after, bar)
        if not pairs:
            return none
        label = np.concatenate([one for one, _ in pairs])
        candidates = join([one for _, one in pairs])
        made, chosen = self._extend(labels, label, candidates, bar)
        if not len(chosen):
            return none
        kept = fronts(made, most_labels, shortest_first=self.just_fit)
        stage = candidates.take(chosen[kept])
        begin = len(self._links)
        rows = (made.link[kept], stage.table, stage.option, stage.first, labels.begin[label[chosen[kept]]])
        self._links += [Link(*row) for row in zip(*(column.tolist() for column in rows), strict=True)]
        return made.take(kept)._replace(link=np.arange(begin, begin + len(kept)))

    def _extend(self, labels: Labels, label: Ints, stage: Candidates, bar: float) -> tuple[Labels, Ints]:
        """Each label at `label` with the stage in the same place, where there is room and the bound is below `bar`."""
        room = labels.room[label] + self.needs[stage.table]
        fits = np.flatnonzero(np.all(room <= self.menu.room, axis=1))
        room, label, stage = room[fits], label[fits], stage.take(fits)
        before = labels.take(label)
        many, late = self.num_rounds, self.style.schedule == "zero-bubble"
        way, last, last_tail, ended = stage.way_s, before.last, before.last_tail_s, stage.first == 0
        tail = np.maximum(before.tail_s, stage.tail_s)
        bound = np.maximum(before.bound_s + (0.0 if late else way), many * stage.work_s)
        if labels.last[0] < 0:
            last, last_tail = stage.table, stage.tail_s
        else:
            near = self.tables.near[stage.table, before.table] > 0
            way = way + np.where(near, stage.near_s, stage.far_s)
            one, other, tied_s = stage.table[ended], last[ended], self.tables.tied_s
            tail[ended] = np.maximum(tail[ended], stage.tail_s[ended] + tied_s[one, other])
            tail[ended] = np.maximum(tail[ended], last_tail[ended] + tied_s[other, one])
        slower = stage.work_s > before.slowest_s
        slowest = np.where(slower, stage.work_s, before.slowest_s)
        slowest_way = np.where(slower, way, before.slowest_way_s)
        rest = self._rest_s(stage.first, room)
        price = before.price + self.prices[stage.table]
        rest_way = rest / self.style.chunks
        least = np.maximum(bound + (0.0 if late else rest_way), many * rest) + tail
        total_way = before.way_s + way
        estimate = many * np.maximum(slowest, rest) - slowest_way + total_way + rest_way + tail
        alive = np.flatnonzero(self.wanted.worths(least, price) < bar)
        self.num_bounded += len(fits) - len(alive)
        made = Labels(
            stage.first, room, bound, slowest, total_way, slowest_way, tail, last_tail, last, stage.table, price,
            before.link, self.wanted.worths(estimate, price),
        )  # fmt: skip
        return made.take(alive), fits[alive]

    def _rest_s(self, first: Ints, room: Floats) -> Floats:
        """Seconds a round at least takes of the slowest of the stages that are still to come."""
        left = (self.menu.room - room)[:, self.menu.device_rows] @ self.rate
        rest = self.work_before[first] / np.maximum(left, 1e-12)
        return np.where(first == 0, 0.0, np.where(left > 0, rest, np.inf))

    def _choices(self, after: int, *, single: bool = False) -> tuple[Choice, Choice]:
        in_flight = 1.0 if single else self._in_flight(after)
        return self.tables.choices(in_flight, single=single, schedule=self.style.schedule, chunks=self.style.chunks)

    def _in_flight(self, after: int) -> float:
        style = self.style
        if style.schedule == "1f1b":
            return min(after + 1, self.num_rounds)
        if style.schedule == "gpipe":
            return self.num_rounds
        assert style.stages is not None
        few = min(self.num_rounds, 4 * style.stages)
        steps = order(style.schedule, style.stages - 1 - after, style.stages, few, style.chunks)
        return most_in_flight(steps) / style.chunks

    def _pairs(self, labels: Labels, after: int, bar: float) -> list[tuple[Ints, Candidates]]:
        """Every label with every stage that may come before it."""
        found = []
        for end in np.unique(labels.begin).tolist():
            own = np.flatnonzero(labels.begin == end)
            candidates = self._every(after, end)
            if candidates is None:
                continue
            worth = self.wanted.worths(
                self.num_rounds * candidates.work_s + candidates.tail_s, self.prices[candidates.table]
            )
            below = np.flatnonzero(worth < bar)
            if len(below):
                place = np.tile(below, len(own))
                found.append((np.repeat(own, len(below)), candidates.take(place)))
        return found

    def _every(self, after: int, end: int) -> Candidates | None:
        """All stages that end before block `end`."""
        key = (after, end)
        if key not in self._seen:
            found = []
            if after == 0 and self.num_stages in {None, 1}:
                found += self._single()
            first = np.arange(1 if after == 0 else 0, end + 1 - self.style.chunks)
            if self.num_stages is not None:
                left = self.num_stages - after - 1
                first = first[first >= left] if left else first[first == 0]
            if len(first):
                table, begin = (grid.ravel() for grid in np.meshgrid(self.only, first, indexing="ij"))
                found += self._stages(self._choices(after), table, begin, np.full(len(begin), end))
            self._seen[key] = join([one for _, one in found]) if found else None
        return self._seen[key]

    def _single(self) -> list[tuple[Ints, Candidates]]:
        zero = np.zeros(len(self.only), dtype=np.int64)
        return self._stages(self._choices(0, single=True), self.only, zero, zero + self.chain.num_blocks)

    def _stages(
        self, choices: tuple[Choice, Choice], table: Ints, first: Ints, end: Ints
    ) -> list[tuple[Ints, Candidates]]:
        """The stages on shapes `table` from `first` to `end`, in both choices of option where they differ."""
        slow, quick = choices
        part = self.chain.part_of[first, end]
        fits = self._fits(slow.work_s, table, first, end)
        if self.style.chunks == 1:
            fits &= self.tables.allowed.whole[first, end]
        differ = fits & (slow.option[table, part] != quick.option[table, part])
        found = []
        for choice, chosen in ((slow, np.flatnonzero(fits)), (quick, np.flatnonzero(differ))):
            own, of = table[chosen], part[chosen]
            option = choice.option[own, of]
            near, far = (2 * self.tables.hop_s[at, own, of, option] for at in (1, 0))
            work, way, tail = choice.work_s[own, of], choice.fill_s[own, of], choice.tail_s[own, of]
            found.append((chosen, Candidates(own, option, first[chosen], work, way, far, near, tail)))
        return found

    def _longest_stages(self, labels: Labels, after: int) -> list[tuple[Ints, Candidates]]:
        """Every label with the longest stage on every shape that the memory allows."""
        found: list[tuple[Ints, Candidates]] = []
        if after == 0 and self.num_stages in {None, 1}:
            found += [(np.zeros(len(chosen), dtype=np.int64), one) for chosen, one in self._single()]
        if self.num_stages == 1:
            return found
        choices = self._choices(after)
        label, table = (grid.ravel() for grid in np.meshgrid(np.arange(len(labels.begin)), self.only, indexing="ij"))
        end = labels.begin[label]
        low = np.full(len(label), 1 if after == 0 else 0)
        if self.num_stages is not None:
            low = np.maximum(low, self.num_stages - after - 1)
        begin = self._longest(choices[0].work_s, table, low, end)
        if self.style.chunks == 1:
            begin = self.chain.next_opening[begin]
        allowed = end - begin >= self.style.chunks
        if self.num_stages == after + 1:
            allowed &= begin == 0
        chosen = np.flatnonzero(allowed)
        stages = self._stages(choices, table[chosen], begin[chosen], end[chosen])
        return found + [(label[chosen[own]], one) for own, one in stages]

    def _longest(self, work_s: Floats, table: Ints, low: Ints, end: Ints) -> Ints:
        """Where the longest parts begin that end at `end`, not before `low`, and hold; `end` where none does.

        A part holds if a longer one with the same end does, so halving finds it.
        """
        low, high = np.minimum(low, end), end.copy()
        while np.any(low < high):
            middle = (low + high) // 2
            open_ = low < high
            last = np.where(open_, end, middle + 1).clip(max=self.chain.num_blocks)
            holds = open_ & self._fits(work_s, table, middle, last)
            high = np.where(holds, middle, high)
            low = np.where(open_ & ~holds, middle + 1, low)
        return high

    def _fits(self, work_s: Floats, table: Ints, first: Ints, end: Ints) -> Bools:
        """Whether the memory holds the parts, and pins let them be together on their shapes."""
        fits = np.isfinite(work_s[table, self.chain.part_of[first, end]])
        return fits if self.allowed is None else fits & self.allowed[table, first, end]


def _rates(device_seconds: Floats) -> tuple[Floats, Floats]:
    """Work of each sort of block in one round, and what one device of each kind does of it per second at most."""
    usable = np.isfinite(device_seconds).all(axis=1)
    work = device_seconds[usable].min(axis=0)
    rate = np.zeros(len(device_seconds))
    rate[usable] = (np.maximum(work, 1e-15) / np.maximum(device_seconds[usable], 1e-15)).max(axis=1)
    return work, rate
