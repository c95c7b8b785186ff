"""Pins of single blocks: the best of all plans that keep them is found, and contradictions are told."""

from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from heliostat.errors import ConfigError, PlanError
from heliostat.placement.constraints import Constraints, PartPin, Pins
from heliostat.placement.search.check import check
from heliostat.placement.search.engine import Search
from heliostat.placement.search.outline import Outline, Style
from heliostat.placement.search.search import search
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload_file import load
from tests.placement.search.cases import A100, V100, Box, Case, cluster, gpt

CASE = Case((Box(A100, 4), Box(V100, 2)), layers=3, hidden=4096, global_batch=8)
PLAIN: dict[str, Any] = {"recompute": "none", "zero": 0, "offload": True, "schedule": "1f1b"}


def keeps(strategy: Strategy, pins: Pins) -> bool:
    """Whether a plan is as pinned, said another way than the search does."""
    begins = tuple(stage.first_block for stage in strategy.stages[1:])
    if pins.cuts not in {None, begins}:
        return False
    for part, stage in product(pins.parts, strategy.stages):
        if stage.first_block < part.end_block and part.first_block < stage.end_block:
            kinds = {replica.device_kind for replica in stage.replicas}
            if not part.takes_tensor(stage.tensor_parallel) or (part.kind and kinds != {part.kind}):
                return False
    return True


def part(first: int, end: int, **fields: Any) -> PartPin:
    return PartPin(first_block=first, end_block=end, **fields)


@pytest.mark.parametrize(
    "named",
    [
        {"cuts": (2,)},
        {"cuts": (1,), "parts": (part(0, 1, kind=V100), part(3, 4, least_tensor=2))},
        {"parts": (part(0, 2, least_tensor=2, most_tensor=2), part(4, 5, most_tensor=1))},
        {"parts": (part(1, 2, kind=V100, most_tensor=1),)},
    ],
    ids=["cuts", "cuts, kinds and degrees", "degrees", "a kind"],
)
def test_the_best_of_the_plans_that_keep_them_is_found(named: dict[str, Any]) -> None:
    pins = Pins(**PLAIN, **named)
    every = Search(CASE.workload, CASE.cluster, Constraints(global_batch=8, pins=Pins(**PLAIN)))
    tables = every.space.tables(2)
    assert tables is not None
    blocks = every.space.chain.num_blocks
    option = next(one for one in tables.options if not one.sequence_parallel and not one.zero)
    best = float("inf")
    for many in (1, 2):
        for shapes, inner in product(product(tables.shapes, repeat=many), combinations(range(1, blocks), many - 1)):
            outline = Outline((*inner, blocks), shapes, (option,) * many, Style("1f1b"), 2)
            draft = every.drafter.draft(outline)
            verdict = every.judge.try_(draft) if draft else None
            if verdict and keeps(every.found(verdict).strategy, pins):
                best = min(best, verdict.worth)
    found = CASE.ask(pins=pins).best
    assert keeps(found.strategy, pins)
    assert found.worth <= best * (1 + 1e-9)


def test_a_stage_is_divided_as_far_as_its_own_blocks_where_cuts_are_given() -> None:
    workload = gpt(3, 512)
    first, *rest = workload.blocks
    workload = workload.model_copy(
        update={"blocks": (first.model_copy(update={"largest_tensor_parallel": 1, "name": "stem"}), *rest)}
    )
    split = (part(1, 2, least_tensor=4, source="split(4)"),)
    wanted = Constraints(global_batch=8, pins=Pins(cuts=(1,), parts=split))
    assert [stage.tensor_parallel for stage in search(workload, CASE.cluster, wanted).best.strategy.stages] == [1, 4]
    with pytest.raises(PlanError, match=r"split\(4\) asks for tensor_parallel 4 or more, but block stem allows 1"):
        search(workload, CASE.cluster, Constraints(global_batch=8, pins=Pins(parts=split)))


def test_many_devices() -> None:
    boxes = tuple(Box(kind, 8) for kind in (A100, V100) for _ in range(8))
    pins = Pins(cuts=(4, 10), parts=(part(0, 1, kind=V100), part(5, 6, least_tensor=2), part(12, 13, most_tensor=1)))
    outcome = search(gpt(16, 1024), cluster(boxes), Constraints(global_batch=64, pins=pins))
    assert all(keeps(found.strategy, pins) for found in (outcome.best, *outcome.runners_up))


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        ({"cuts": (5,)}, "a stage is to begin at block 5, the last block is 4"),
        ({"cuts": (2,), "num_stages": 3}, "num_stages 3, but `cuts` make 2"),
        ({"cuts": (2,), "schedule": "none"}, "schedule none is that of one stage, but `cuts` make 2"),
        ({"cuts": (2,), "schedule": "interleaved"}, "but `cuts` or `parts` name blocks"),
        ({"parts": (part(3, 9, most_tensor=1),)}, "`parts` names block 8, the last block is 4"),
        ({"parts": (part(0, 1, kind="B200", source="stage()"),)}, "stage() asks for B200, which is not in the cluster"),
        ({"kinds": (A100,), "parts": (part(0, 1, kind=V100),)}, f"asks for {V100}, but kinds are {A100}"),
        ({"tensor_parallel": 2, "parts": (part(0, 1, most_tensor=1),)}, "tensor_parallel 1, but it is pinned to 2"),
        ({"parts": (part(0, 1, least_tensor=3, most_tensor=3),)}, "3, which is no power of two"),
        (
            {"parts": (part(0, 1, least_tensor=4, kind=V100),)},
            "needs so many devices of a kind in a node, the most is 2",
        ),
        (
            {"cuts": (2,), "parts": (part(0, 1, least_tensor=2, source="a"), part(1, 2, most_tensor=1, source="b"))},
            "one stage, but a asks for tensor_parallel 2 or more and b for 1",
        ),
        ({"parts": (part(0, 2, kind=A100), part(1, 3, kind=V100))}, f"asks for {A100} and `parts` for {V100}"),
        (
            {"equal_widths": True, "cuts": (2,), "parts": (part(0, 1, kind=A100), part(3, 4, kind=V100))},
            f"equal_widths, but `parts` asks for {A100}",
        ),
    ],
    ids=lambda one: "" if isinstance(one, dict) else one,
)
def test_contradictions(pins: dict[str, Any], told: str) -> None:
    wanted = Constraints(global_batch=8, pins=Pins.model_validate(pins))
    with pytest.raises(PlanError) as caught:
        check(CASE.workload, CASE.cluster, wanted)
    assert told in str(caught.value)


def test_pins_of_different_stages_do_not_contradict() -> None:
    parts = (part(0, 2, kind=A100, least_tensor=2), part(2, 5, kind=V100, most_tensor=1))
    check(CASE.workload, CASE.cluster, Constraints(global_batch=8, pins=Pins(cuts=(2,), parts=parts)))


def test_what_is_no_pin() -> None:
    with pytest.raises(ValidationError, match="must rise"):
        Pins(cuts=(3, 2))
    with pytest.raises(ValidationError, match="blocks 2 to 2 are none"):
        part(2, 2)
    with pytest.raises(ValidationError, match="degrees from 4 to 2 are none"):
        part(0, 1, least_tensor=4, most_tensor=2)


def test_in_a_workload_file(tmp_path: Path) -> None:
    path = tmp_path / "work.yaml"
    text = "model: gpt-13b\nglobal_batch: 8\npins:\n  cuts: [20]\n  parts: [{first_block: 0, end_block: 9, kind: T4}]\n"
    path.write_text(text)
    assert load(path).wanted.pins == Pins(cuts=(20,), parts=(part(0, 9, kind="T4"),))
    path.write_text(text.replace("[20]", "[20, 3]").replace("kind", "sort"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    (mistake,) = caught.value.mistakes
    assert "work.yaml:5:" in mistake
    assert "sort" in mistake
    path.write_text(text.replace("[20]", "[20, 3]"))
    with pytest.raises(ConfigError, match="`cuts` must rise"):
        load(path)
