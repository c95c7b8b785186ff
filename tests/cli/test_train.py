"""`heliostat train`: what it asks of a run, and how its checks become an exit code."""

from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import invoke
from heliostat.experiment.config import load_experiment
from heliostat.experiment.main_job import Goal, main_job
from heliostat.experiment.pipeline import StepOutcome
from heliostat.experiment.records import Record
from heliostat.experiment.services import Session
from heliostat.experiment.step import StepResult
from heliostat.experiment.summary import Summary
from heliostat.train.verify.verification import Check, Term, Verification

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.mark.parametrize(
    ("goal", "steps"),
    [
        ("serve", ["data", "plan", "train", "tune", "register", "serve", "smoke"]),
        ("train", ["data", "plan", "train"]),
        ("verify", ["data", "plan", "verify"]),
    ],
)
def test_a_run_goes_as_far_as_it_is_asked_to(goal: Goal, steps: list[str]) -> None:
    found = main_job(load_experiment(QUICKSTART, []), cluster_facts={}, registry_uri="", goal=goal)
    assert [step.name for step in found] == steps


@pytest.mark.parametrize(("got", "passed"), [(1.0, True), (2.0, False)])
def test_a_failed_check_is_no_success(got: float, passed: bool) -> None:  # noqa: FBT001
    term = Term(what="loss", expected=1.0, got=got)
    check = Check(name="equality", compared="this with that", terms=(term,))
    result = StepResult(outputs={"verification": Verification(checks=(check,), seconds=1.0)})
    fields: dict[str, Any] = {"step": "verify", "result": result}
    record = Record.model_construct(**fields)
    outcome = StepOutcome(step="verify", skipped=False, record=record)
    summary = Summary(experiment=load_experiment(QUICKSTART, []), outcomes=[outcome], session=Session())
    assert summary.passed is passed


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert invoke(["train", str(tmp_path / "none.yaml"), "--verify"]) == 2
    assert "none.yaml" in capsys.readouterr().err
