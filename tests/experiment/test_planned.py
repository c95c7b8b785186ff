"""The plan of an experiment, told without running anything."""

from pathlib import Path

import pytest

from heliostat.errors import UserError
from heliostat.experiment.planned import is_experiment, planned

ROOT = Path(__file__).parents[2]


def test_an_experiment_is_told_from_a_workload() -> None:
    assert is_experiment(ROOT / "configs" / "quickstart.yaml")
    assert not is_experiment(ROOT / "configs" / "plans" / "gpt-13b.yaml")


def test_an_experiment_that_has_not_run_has_no_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no plan yet") as caught:
        planned(ROOT / "configs" / "quickstart.yaml", [f"store={tmp_path}"])
    assert caught.value.next_step is not None
    assert caught.value.next_step.startswith("heliostat run ")
