"""Step `plan`: what the section pins, what the step depends on, and what it tells of plans with several stages."""

from pathlib import Path

import pytest

from heliostat.errors import PlanError
from heliostat.experiment.sections import PlanConfig
from heliostat.experiment.steps.plan import busiest, facts_of, pins_of
from heliostat.placement.constraints import Pins
from heliostat.placement.prediction import Prediction, StageCost
from heliostat.train.execution import RUNNABLE, execution_of


def test_what_is_null_is_left_to_the_planner() -> None:
    assert pins_of(PlanConfig().model_dump()) == RUNNABLE
    pins = pins_of(PlanConfig(num_stages=2, schedule="zero-bubble", zero=1, recompute="full").model_dump())
    assert pins == RUNNABLE.model_copy(
        update={"num_stages": 2, "schedule": "zero-bubble", "zero": 1, "recompute": "full"}
    )


def test_every_pin_of_the_section_is_one_of_the_planner() -> None:
    assert set(PlanConfig.model_fields) - {"file"} <= set(Pins.model_fields)


def test_what_the_executor_does_not_run_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.experiment.steps.plan.RUNNABLE", Pins(sequence_parallel=False, zero=0))
    with pytest.raises(PlanError) as caught:
        pins_of(PlanConfig(sequence_parallel=True, zero=0).model_dump())
    assert caught.value.where == "plan.sequence_parallel"
    assert caught.value.got == "sequence_parallel: true"


def test_a_step_depends_on_what_is_in_the_plan_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("{}")
    before = facts_of(str(path))
    path.write_text("{} ")
    assert facts_of(str(path)) != before
    assert facts_of(None) == {}


def test_the_stage_that_waits_least_says_where_the_time_goes() -> None:
    costs = [
        StageCost(seconds={"compute": compute, "bubble": bubble}, memory_bytes={})
        for compute, bubble in ((1.0, 3.0), (3.0, 1.0), (2.0, 2.0))
    ]
    told = Prediction(step_time_s=4.0, low_s=4.0, high_s=4.0, memory_bytes=(1, 2, 3), stages=tuple(costs))
    assert busiest(told) == {"compute": 3.0, "bubble": 1.0}


def test_the_planner_is_told_how_steps_are_run() -> None:
    plain, mixed = execution_of(), execution_of("bf16", compiled=True, on_gpus=True)
    assert (plain.dtype, plain.parameter_bytes, plain.state_bytes, plain.context_bytes) == ("fp32", 4, 8.0, 0.0)
    assert (mixed.dtype, mixed.parameter_bytes, mixed.gradient_bytes, mixed.compiled) == ("bf16", 4, 4, True)
    assert mixed.context_bytes > 0
