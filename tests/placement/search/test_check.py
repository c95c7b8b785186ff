"""Questions that contradict themselves are refused before anything is searched, with all that is wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.search.check import check
from heliostat.placement.workload import WorkloadProfile
from tests.placement.search.cases import A100, V100, Box, cluster, gpt

CLUSTER = cluster((Box(A100, 4), Box(V100, 2)))


def asked(workload: WorkloadProfile | None = None, **fields: Any) -> None:
    check(workload or gpt(2, 512), CLUSTER, Constraints.model_validate({"global_batch": 8, **fields}))


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ({"kinds": ("B200",)}, "kinds B200 are not in the cluster, which has A100-40GB-SXM, V100-16GB-SXM"),
        ({"kinds": ()}, "(none)"),
        ({"tensor_parallel": 8}, "tensor_parallel 8 needs so many devices of a kind in a node, the most is 4"),
        ({"tensor_parallel": 3}, "tensor_parallel 3 is not a power of two"),
        ({"num_stages": 3, "tensor_parallel": 4}, "num_stages 3 x tensor_parallel 4 needs 12 devices, there are 6"),
        ({"num_stages": 5}, "5 stages for 4 blocks"),
        ({"micro_batch": 9}, "micro_batch 9 of a global batch of 8"),
        ({"data_parallel": 9}, "data_parallel 9 for a global batch of 8"),
        ({"schedule": "none", "num_stages": 2}, "schedule none is that of one stage, not of 2"),
        ({"schedule": "gpipe", "num_stages": 1}, "schedule gpipe needs several stages"),
        ({"chunks": 2}, "chunks are parts of the interleaved schedule"),
        ({"schedule": "zero-bubble", "zero": 2}, "schedule zero-bubble goes with ZeRO 0 and 1 alone, not with 2"),
        ({"chunks": 1, "schedule": "interleaved"}, "two chunks at least"),
    ],
    ids=str,
)
def test_pins_that_contradict(pins: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        asked(pins=pins)
    assert words in str(caught.value)


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        asked(pins={"micro_batch": 9, "chunks": 2, "num_stages": 5})
    for words in ("micro_batch 9", "chunks are parts", "5 stages for 4 blocks", "leave one of them to the planner"):
        assert words in str(caught.value)


def test_questions_that_contradict_nothing() -> None:
    asked()
    asked(pins=Pins(schedule="interleaved", chunks=2, num_stages=2, zero=3, recompute="full"))
    asked(objective="cheapest", price_per_hour={A100: 1.0, V100: 0.0})


def test_goals_need_what_they_are_measured_by() -> None:
    with pytest.raises(ValidationError, match="price_per_hour"):
        Constraints(global_batch=8, objective="cheapest")
    with pytest.raises(ValidationError, match="target_s"):
        Constraints(global_batch=8, objective="fewest")
    with pytest.raises(PlanError, match="price_per_hour lacks V100-16GB-SXM"):
        asked(objective="cheapest", price_per_hour={A100: 1.0})


def test_a_block_that_does_nothing() -> None:
    workload = gpt(2, 512)
    first, *rest = workload.blocks
    for ops in ((), (first.ops[0].model_copy(update={"kind": "memory", "elements": 0.0, "backward_elements": 0.0}),)):
        idle = first.model_copy(update={"name": "idle", "ops": ops})
        with pytest.raises(PlanError, match="block idle has no operations"):
            asked(workload.model_copy(update={"blocks": (idle, *rest)}))
