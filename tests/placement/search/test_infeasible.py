"""What is said when nothing fits: it must be true."""

import re
from typing import Any

import pytest

from heliostat.errors import PlanError
from heliostat.placement.constraints import Pins
from heliostat.placement.search.infeasible import STEP_BYTES
from tests.placement.search.cases import A100, T4, V100, Box, Case

TOO_LARGE = Case((Box(T4, 1), Box(V100, 2)), layers=12, hidden=8192)


def refusal(case: Case, **fields: Any) -> str:
    with pytest.raises(PlanError) as caught:
        case.ask(**fields)
    return str(caught.value)


def with_extra(case: Case, kind: str, extra_bytes: int) -> Case:
    boxes = (box._replace(extra_bytes=extra_bytes) if box.kind == kind else box for box in case.boxes)
    return case._replace(boxes=tuple(boxes))


def test_the_missing_bytes_are_enough_and_not_too_many() -> None:
    text = refusal(TOO_LARGE)
    kind, missing = text.split(" lacks ")[0].split()[-1], missing_bytes(text)
    assert with_extra(TOO_LARGE, kind, missing).ask()
    assert "no plan fits" in refusal(with_extra(TOO_LARGE, kind, missing - STEP_BYTES))
    for other in {T4, V100} - {kind}:
        assert "no plan fits" in refusal(with_extra(TOO_LARGE, other, missing - STEP_BYTES))


def test_the_named_change_helps() -> None:
    change = refusal(TOO_LARGE).split("smallest change that fits: ")[1]
    kind = change.split()[-1]
    assert change in {f"one more {kind}", f"one more node with {kind}"}
    more = next(box for box in TOO_LARGE.boxes if box.kind == kind)
    more = more if "node" in change else more._replace(num_devices=1)
    assert TOO_LARGE._replace(boxes=(*TOO_LARGE.boxes, more)).ask()


def missing_bytes(text: str) -> int:
    found = re.search(r"\((\d+) bytes\)", text)
    assert found
    return int(found[1])


@pytest.mark.parametrize(
    ("pins", "leaner", "change"),
    [
        ({"recompute": "none"}, {"recompute": "full"}, "recompute: "),
        ({"offload": False}, {"offload": True}, "offload: true"),
        ({"micro_batch": 8}, {"micro_batch": 1}, "micro_batch: "),
        (
            {"num_stages": 1, "zero": 0, "tensor_parallel": 1},
            {"zero": 0, "tensor_parallel": 1},
            "leave `num_stages` open",
        ),
        ({"zero": 0, "data_parallel": 2}, {"zero": 3, "data_parallel": 2}, "leave `data_parallel` open"),
        ({"zero": 1, "num_stages": 1, "tensor_parallel": 1}, {"num_stages": 2, "zero": 1}, "leave `num_stages` open"),
    ],
    ids=str,
)
def test_a_pin_that_stands_in_the_way_is_named(pins: dict[str, Any], leaner: dict[str, Any], change: str) -> None:
    case = Case((Box(T4, 2),), layers=12, hidden=8192, global_batch=16)
    enough = with_extra(case, T4, missing_bytes(refusal(case, pins=Pins(**leaner))))
    assert enough.ask(pins=Pins(**leaner))
    assert f"smallest change that fits: {change}" in refusal(enough, pins=Pins(**pins))


def test_a_model_that_no_cluster_of_this_kind_holds() -> None:
    text = refusal(Case((Box(T4, 1),), layers=200, hidden=32768, global_batch=4))
    assert "use a smaller model or many more devices" in text


def test_pins_that_no_memory_makes_possible() -> None:
    case = Case((Box(A100, 3),), layers=4, global_batch=5)
    text = refusal(case, pins=Pins(schedule="interleaved", num_stages=3, chunks=2, micro_batch=1))
    assert "no plan can be made as it is pinned" in text
    assert "smallest change that fits" in text
