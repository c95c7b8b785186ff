"""A plan from a file is run only on the model, the batch and the devices that it is for."""

from typing import Any

import pytest

from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, PartPin, Pins
from heliostat.placement.given_plan import given
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.plan_file import PlanFile
from heliostat.placement.prediction import predict
from heliostat.placement.strategy import Execution, Strategy
from tests.placement.search.cases import A100, V100, Box, cluster, gpt
from tests.placement.search.test_runnable import closed
from tests.placement.view.plans import stage

WORKLOAD = gpt(6, 512)
CLUSTER = cluster((Box(A100, 4), Box(V100, 2)))
EXECUTION = Execution(dtype="fp32", parameter_bytes=4)
STRATEGY = Strategy(
    global_batch=64,
    stages=(stage(0, 3, A100, 2, 2), stage(3, 8, V100, 2, 1)),
    schedule="1f1b",
    execution=Execution(dtype="bf16"),
)


def written(strategy: Strategy = STRATEGY, **fields: Any) -> PlanFile:
    made: dict[str, Any] = {"workload": WORKLOAD, "cluster": CLUSTER, "wanted": Constraints(global_batch=64)} | fields
    return PlanFile(strategy=strategy, prediction=predict(WORKLOAD, CLUSTER, STRATEGY), **made)


def asked(plan: PlanFile | None = None, **fields: Any) -> ParallelPlan:
    usual: dict[str, Any] = {"workload": WORKLOAD, "cluster": CLUSTER, "pins": Pins(), "global_batch": 64} | fields
    wanted = Constraints(global_batch=usual["global_batch"], execution=EXECUTION, pins=usual["pins"])
    return given(plan or written(), usual["workload"], usual["cluster"], wanted, where="plan.json")


def with_stage(number: int, **fields: Any) -> Strategy:
    stages = list(STRATEGY.stages)
    stages[number] = stages[number].model_copy(update=fields)
    return STRATEGY.model_copy(update={"stages": tuple(stages)})


def test_the_strategy_is_taken_and_predicted_as_it_will_run() -> None:
    plan = asked()
    assert plan.strategy == STRATEGY.model_copy(update={"execution": EXECUTION})
    assert plan.prediction == predict(WORKLOAD, CLUSTER, plan.strategy)
    assert plan.reason.endswith("as plan.json says")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workload": gpt(7, 512)}, ["another model", "gpt with 8 blocks", "the model is gpt with 9 blocks"]),
        ({"workload": gpt(6, 1024)}, ["another model", "8 blocks and"]),
        ({"global_batch": 32}, ["another global batch", "64 samples in the plan, train.global_batch is 32"]),
        ({"cluster": cluster((Box(A100, 2), Box(V100, 2)))}, ["needs 6 workers, 4 are there", f"there are 2 {A100}"]),
        ({"cluster": cluster((Box(A100, 6),))}, ["other devices than are there", f"2 {V100}; there are 6 {A100}"]),
        ({"workload": closed(WORKLOAD, {3})}, ["cannot be run", "stages.1.first_block is 3, where the model cannot"]),
        ({"pins": Pins(cuts=(4,))}, ["stages begin at 3, not as the model's annotations say"]),
        (
            {"pins": Pins(parts=(PartPin(first_block=5, end_block=6, least_tensor=2, source="split() at m.py:3"),))},
            ["stages.1 is not what split() at m.py:3 asks for"],
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_plan_for_something_else(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        asked(**fields)
    for one in words:
        assert one in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (with_stage(0, offload=True), "stages.0.offload is not run"),
        (with_stage(0, sequence_parallel=True), "stages.0.sequence_parallel is not run"),
        (with_stage(0, zero=2).model_copy(update={"schedule": "zero-bubble"}), "zero is 2, but zero-bubble goes with"),
        (with_stage(1, replicas=stage(3, 8, V100, 2, micro_batch=3).replicas), "take 6 samples together in round 0"),
    ],
)
def test_a_plan_that_cannot_be_run(strategy: Strategy, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        asked(written(strategy), pins=Pins(offload=False, sequence_parallel=False))
    assert words in str(caught.value)


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    for hidden, help_ in ((4096, "smallest change that fits: "), (8192, "use more devices")):
        large = gpt(6, hidden)
        with pytest.raises(PlanError, match="does not fit into the memory of stage 1") as caught:
            asked(written(workload=large), workload=large, pins=Pins(offload=False))
        assert help_ in str(caught.value)
        assert "on the host" not in str(caught.value)
