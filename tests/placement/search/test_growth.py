"""The pieces of the search against trying everything, with few options, so that everything can be tried."""

from collections.abc import Iterator
from itertools import combinations, pairwise, product

import pytest

from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.ground import Shape
from heliostat.placement.search.cutting import Cutter
from heliostat.placement.search.distinct import distinct
from heliostat.placement.search.engine import Search
from heliostat.placement.search.growth import Growth
from heliostat.placement.search.improve import improve
from heliostat.placement.search.judge import Verdict
from heliostat.placement.search.outline import Outline, Style
from tests.placement.search.cases import A100, V100, Box, Case

CASE = Case((Box(A100, 2), Box(V100, 1)), layers=3, hidden=4096, global_batch=8)
PINS = Pins(recompute="none", zero=0, offload=True, sequence_parallel=False)
STYLE = Style("1f1b")


def search(shut: tuple[int, ...] = ()) -> Search:
    """Of a chain where no stage begins with the blocks `shut`."""
    blocks = [block.model_copy(update={"count": 1}) for block in CASE.workload.blocks for _ in range(block.count)]
    opened = tuple(block.model_copy(update={"opens_stage": at not in shut}) for at, block in enumerate(blocks))
    workload = CASE.workload.model_copy(update={"blocks": opened}) if shut else CASE.workload
    return Search(workload, CASE.cluster, Constraints(global_batch=8, pins=PINS))


def every_pipeline(one: Search, size: int) -> Iterator[Outline]:
    tables = one.space.tables(size)
    assert tables is not None
    blocks = one.space.chain.num_blocks
    for many in (1, 2, 3):
        for shapes in product(tables.shapes, repeat=many):
            for inner in combinations(range(1, blocks), many - 1):
                options = tuple(
                    option
                    for shape in shapes
                    for option in tables.options
                    if not option.zero and not option.sequence_parallel
                )
                yield Outline((*inner, blocks), shapes, options, STYLE, size)


def judged(one: Search, outlines: Iterator[Outline]) -> list[Verdict]:
    drafts = filter(None, map(one.drafter.draft, outlines))
    return sorted(filter(None, map(one.judge.try_, drafts)), key=lambda verdict: verdict.key)


@pytest.mark.parametrize(("size", "shut"), [(1, ()), (2, ()), (4, ()), (1, (1, 3)), (2, (2,)), (4, (4,))])
def test_growing_labels_finds_what_trying_everything_finds(size: int, shut: tuple[int, ...]) -> None:
    one = search(shut)
    best = judged(one, every_pipeline(one, size))[0]
    other = search(shut)
    tables = other.space.tables(size)
    assert tables is not None
    grown = Growth(other.space.menu, other.wanted, tables, STYLE).grow(float("inf"), 1500, 64, lambda: False)
    assert judged(other, (outline for _, outline in grown))[0].worth == pytest.approx(best.worth, rel=1e-9)
    # with the best as the bar, nothing that is as good is given up
    again = Growth(other.space.menu, other.wanted, tables, STYLE)
    assert again.grow(best.worth * 1.01, 1500, 64, lambda: False)
    assert again.num_bounded > 0


@pytest.mark.parametrize("shut", [(), (2,), (1, 3)])
def test_a_chain_is_cut_where_the_slowest_stage_is_fastest(shut: tuple[int, ...]) -> None:
    one = search(shut)
    tables = one.space.tables(2)
    assert tables is not None
    places = [tables.shapes.index(shape) for shape in tables.shapes if shape.width * shape.tensor == 1]
    assert len(places) == 2
    parts, blocks = one.space.chain.part_of, one.space.chain.num_blocks

    def slowest_s(cuts: tuple[int, ...]) -> float:
        return max(
            float((tables.forward_s + tables.backward_s)[place, parts[first, end], 0])
            for place, (first, end) in zip(places, pairwise((0, *cuts)), strict=True)
        )

    found = Cutter(tables).cut(places, STYLE)
    assert found is not None
    best = min(slowest_s((cut, blocks)) for cut in range(1, blocks) if cut not in shut)
    assert found[0][0] not in shut
    assert slowest_s(found[0]) <= best * 1.001


@pytest.mark.parametrize("shut", [(), (2,), (3,)])
def test_small_changes_lead_to_the_best_cut(shut: tuple[int, ...]) -> None:
    one = search(shut)
    shapes = (Shape((1, 0), 1), Shape((0, 1), 1))
    best, *_, worst = judged(one, (outline for outline in every_pipeline(one, 2) if outline.shapes == shapes))
    fresh = search(shut)
    improve(worst, fresh.judge, fresh.drafter, [STYLE], 400, lambda: False)
    assert fresh.judge.best is not None
    assert fresh.judge.best.worth <= best.worth < worst.worth


def test_nothing_is_changed_when_the_time_is_up() -> None:
    one = search()
    start = judged(one, every_pipeline(one, 2))[-1]
    fresh = search()
    improve(start, fresh.judge, fresh.drafter, [STYLE], 400, lambda: True)
    assert not fresh.judge.verdicts


def test_variants_of_a_plan_count_as_one() -> None:
    one = Search(CASE.workload, CASE.cluster, Constraints(global_batch=8))
    ranked = one.run()
    stages, schedule = ranked[0].draft.stages, ranked[0].draft.schedule
    chosen = distinct(ranked, 5)
    assert chosen[0] == ranked[0]
    looks = [
        (one.draft.schedule, one.draft.chunks, *((stage.first_block, stage.shape) for stage in one.draft.stages))
        for one in chosen
    ]
    assert len(set(looks)) == len(chosen) == 5
    variants = [one for one in ranked if (one.draft.schedule, len(one.draft.stages)) == (schedule, len(stages))]
    same = [one for one in variants if all(a.shape == b.shape for a, b in zip(one.draft.stages, stages, strict=True))]
    if all(a.first_block == b.first_block for one in same for a, b in zip(one.draft.stages, stages, strict=True)):
        assert distinct(same, 3) == same[:3]
