"""The search: one engine for small and large clusters. Pure.

1. Skeletons: equal stages of each set of kinds, ranked as if blocks could be cut anywhere; the best are cut.
2. One stage whose replicas have rounds of their own (`uneven`).
3. Where shapes and parts are few enough, all pipelines, grown as labels (`growth`), with what 1 and 2 found as the bar.
4. The best of all by the closed form are simulated (`judge`), under other schedules too, and improved by small changes.
5. If all that found nothing, the leanest plans (`feasible`).
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.constraints import Constraints
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.ground import Shape
from heliostat.placement.search import feasible
from heliostat.placement.search.cutting import Cutter
from heliostat.placement.search.draft import Draft, price_of, strategy_of
from heliostat.placement.search.growth import Growth
from heliostat.placement.search.improve import improve
from heliostat.placement.search.judge import Judge, Verdict
from heliostat.placement.search.menu import options_of, suits
from heliostat.placement.search.outcome import Found
from heliostat.placement.search.outline import Drafter, Outline, Style, outline_of
from heliostat.placement.search.rates import Rates
from heliostat.placement.search.skeletons import Skeleton, orders, skeletons
from heliostat.placement.search.space import Space
from heliostat.placement.search.tables import Tables
from heliostat.placement.search.uneven import uneven_drafts
from heliostat.placement.search.varied import varied
from heliostat.placement.workload import WorkloadProfile

MOST_LABELS = 1500
"""Kept of one number of stages."""
NUM_FINALISTS, FEW_FINALISTS, NUM_OPENINGS = 64, 12, 8
LONG_S = 60.0
"""A budget with which no plan need be found in a hurry."""
SLACK = 1.01
"""Bounds rest on the links of a stage that stands at the beginning of its nodes."""
FAR = 1.3
"""Finalists whose closed form is so many times the best are left out."""
Pool = list[tuple[float, Outline]]


class Search:
    """One search."""

    def __init__(
        self,
        workload: WorkloadProfile,
        cluster: ClusterSpec,
        wanted: Constraints,
        constants: Efficiencies | None = None,
    ) -> None:
        self.started = time.monotonic()
        self.space = Space(workload, cluster, wanted, constants)
        self.wanted = self.space.wanted
        self.judge = Judge(self.space.costs, self.wanted)
        self.drafter = Drafter(self.space.costs, self.space.menu, wanted.global_batch)
        self.cut_by_budget = False
        self._refused = Counter[str]()
        self._known_rates: dict[int, Rates | None] = {}

    def run(self) -> list[Verdict]:
        """All plans that were judged and fit, the best first; none if nothing fits."""
        if self.space.is_small:
            self._uneven()
        if self.judge.best is None and self.wanted.budget_s < LONG_S:
            self._open()
        pool = self._outlines()
        # with given cuts there are few pipelines, and equal stages of each kind may not be among the good ones
        if self.space.is_small or self.wanted.pins.cuts is not None:
            for _, outline in self._guessed(pool)[:FEW_FINALISTS]:
                self._judge(outline)
            pool += self._everything()
        self._finals(self._guessed(pool))
        if not self.space.is_small:
            self._uneven()
        if self.judge.best is None:
            feasible.first_that_fits(self.space, self.judge, self.drafter)
        self._improve()
        return self._ranked()

    @property
    def refused(self) -> dict[str, int]:
        """How many plans, or parts of plans, were refused, by reason."""
        return dict(sorted((self._refused + self.judge.refused).items()))

    def found(self, verdict: Verdict) -> Found:
        """The plan of `verdict` written out."""
        kinds = self.space.ground.kinds
        strategy = strategy_of(verdict.draft, kinds, self.wanted.global_batch, self.wanted.execution)
        return Found(
            strategy=strategy.model_validate(strategy.model_dump()),
            prediction=self.judge.prediction(verdict.draft),
            worth=verdict.worth,
        )

    def _expired(self) -> bool:
        """Whether the time is up; not before there is a plan."""
        if self.judge.best is not None:
            self.cut_by_budget |= time.monotonic() - self.started > self.wanted.budget_s
        return self.cut_by_budget

    def _uneven(self) -> None:
        pins, batch = self.wanted.pins, self.wanted.global_batch
        if pins.num_stages not in {None, 1}:
            return
        few = not self.space.is_small
        found: list[tuple[float, Draft]] = []
        for shape in self.space.menu.shapes(batch):
            if not self.drafter.allowed.stage(0, self.space.chain.num_blocks, shape):
                continue
            if pins.use_all and shape.width * shape.tensor < self.space.num_devices:
                continue
            if not self.space.is_small and self._is_hopeless(shape):
                continue
            options = [option for option in options_of(pins) if suits(option, shape, pins, few=few)]
            drafts = uneven_drafts(self.space.costs, shape, options, batch, pins.micro_batch)
            found += [(self.wanted.worth(s, draft.price(self.judge.prices)), draft) for s, draft in drafts]
        found.sort(key=lambda one: one[0])
        for worth, draft in found[:NUM_FINALISTS]:
            if worth < self.judge.bar * SLACK and not self._expired():
                self.judge.try_(draft)

    def _is_hopeless(self, shape: Shape) -> bool:
        """Whether one stage on `shape` is slower than the best plan even with nothing to synchronise."""
        costs = self.space.costs
        step_s = self.wanted.global_batch / costs.samples_per_s(shape)
        price = price_of(shape, self.judge.prices)
        return self.wanted.worth(step_s, price) > self.judge.bar

    def _open(self) -> None:
        """Find a first plan among a few, so that there is one when the time is up; with rounds of a middle size."""
        sizes = self.space.round_sizes()
        for size in sizes[len(sizes) // 2 :] + sizes[: len(sizes) // 2]:
            rates = self._rates(size)
            found = self._skeletons(rates, size, NUM_OPENINGS) if rates else []
            for _, outline in self._cut(found, rates, size) if rates and found else ():
                if self._judge(outline):
                    return

    def _rates(self, size: int) -> Rates | None:
        """Of all shapes for rounds of `size` samples; None if there are none."""
        if size not in self._known_rates:
            space = self.space
            shapes = space.shapes(size)
            self._known_rates[size] = (
                Rates(space.costs, shapes, space.num_rounds(size), self.wanted.pins) if shapes else None
            )
        return self._known_rates[size]

    def _skeletons(self, rates: Rates, size: int, most: int) -> list[Skeleton]:
        return skeletons(rates, self.space.menu, self.wanted, self.space.any_styles(), size, most)

    def _outlines(self) -> Pool:
        """The best skeletons over all sizes of round, cut."""
        most = self.space.effort.num_skeletons
        found: list[Skeleton] = []
        for size in self.space.round_sizes():
            rates = None if self._expired() else self._rates(size)
            found += self._skeletons(rates, size, most) if rates else []
        found = varied(sorted(found, key=Skeleton.order), most, lambda one: one.kinds)
        pool: Pool = []
        for size in sorted({skeleton.round_size for skeleton in found}):
            rates = None if self._expired() else self._rates(size)
            if rates:
                pool += self._cut([one for one in found if one.round_size == size], rates, size)
        return pool

    def _cut(self, found: Sequence[Skeleton], rates: Rates, size: int) -> Iterator[tuple[float, Outline]]:
        """The skeletons `found`, all of one size of round, in every order of their kinds."""
        used = sorted({shape for skeleton in found for shape, _ in skeleton.groups})
        tables = self.space.tables_of([(rates.shapes[shape], rates.shares[shape]) for shape in used], size)
        self._count_too_large(tables)
        cutter = Cutter(tables)
        for skeleton in found:
            for order in () if self._expired() else orders(skeleton):
                places = [used.index(shape) for shape in order]
                cut = cutter.cut(places, skeleton.style)
                if cut is not None:
                    options = tuple(tables.options[option] for option in cut[1])
                    shapes = tuple(tables.shapes[place] for place in places)
                    yield skeleton.estimate, Outline(cut[0], shapes, options, skeleton.style, size)

    def _everything(self) -> Pool:
        """All pipelines that may be better than the best so far."""
        pool: Pool = []
        for style in (*self.space.styles(), *self.space.counted_styles()):
            for size in self.space.round_sizes():
                pool += self._grow(size, style)
        return pool

    def _grow(self, size: int, style: Style) -> Pool:
        tables = None if self._expired() else self.space.tables(size)
        if tables is None:
            return []
        if style.schedule == "interleaved" and style.stages and tables.num_rounds % style.stages:
            return []
        found: Pool = []
        for group in self.space.groups(tables):
            growth = Growth(self.space.menu, self.wanted, tables, style, group)
            found += growth.grow(self.judge.bar * SLACK, MOST_LABELS, NUM_FINALISTS, self._expired)
            self._refused["cannot be faster than the best, by a bound"] += growth.num_bounded
        self._count_too_large(tables)
        found.sort(key=lambda one: one[0])
        for _, outline in found[:3]:
            self._judge(outline)
        return found[:NUM_FINALISTS]

    def _count_too_large(self, tables: Tables) -> None:
        for kind, number in tables.num_too_large.items():
            if number:
                self._refused[f"a stage that the memory of {kind} does not hold"] += number
        tables.num_too_large.clear()

    def _guessed(self, pool: Pool) -> Pool:
        """The first of `pool`, with what the closed form says of them on the links they would get."""
        found: dict[Outline, float] = {}
        ranked = sorted(pool, key=lambda one: one[0])
        for _, outline in varied(ranked, self.space.effort.num_guessed, lambda one: one[1].kinds):
            draft = None if self._expired() else self.drafter.draft(outline)
            if draft is not None:
                found[outline] = self.judge.guess(draft)
        return sorted(((guess, outline) for outline, guess in found.items()), key=lambda one: one[0])

    def _finals(self, pool: Pool) -> None:
        """Simulate the best, then the very best under other schedules."""
        begun = self.judge.num_passes
        for guess, outline in pool[: 4 * NUM_FINALISTS]:
            spent = self.judge.num_passes - begun > self.space.effort.num_passes
            if spent or guess > FAR * self.judge.bar or self._expired():
                break
            self._judge(outline)
        for verdict in self._ranked()[: self.space.effort.num_rescheduled]:
            for style in self.space.any_styles() if len(verdict.draft.stages) > 1 else ():
                if not self._expired():
                    self._judge(outline_of(verdict.draft)._replace(style=style))

    def _judge(self, outline: Outline) -> Verdict | None:
        draft = self.drafter.draft(outline)
        if draft is None:
            self._refused["samples, blocks or devices cannot be divided so"] += 1
            return None
        return self.judge.try_(draft)

    def _improve(self) -> None:
        styles = self.space.any_styles()
        if self.wanted.pins.schedule is None and not self.space.is_small:
            styles.append(Style("gpipe"))
        effort = self.space.effort
        changeable = [verdict for verdict in self._ranked() if verdict.draft.round_size]
        for verdict in changeable[: effort.num_improved]:
            if not self._expired():
                improve(verdict, self.judge, self.drafter, styles, effort.num_changes, self._expired)

    def _ranked(self) -> list[Verdict]:
        return sorted((one for one in self.judge.verdicts.values() if one is not None), key=lambda one: one.key)
