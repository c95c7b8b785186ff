"""What a run shows while it goes on."""

import pytest

from heliostat.errors import RunFailure
from heliostat.experiment.display import Display, shortened
from heliostat.experiment.events import StepFailed, StepProgress, StepStarted


def test_a_line_when_a_step_begins_and_when_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=False) as display:
        display.show(StepStarted(step="train", reasons=("config: train.lr 1 -> 2 (--set [train.lr])",)))
        display.show(StepProgress(step="train", done=1, total=4, text="loss [0.5]"))
        display.show(StepFailed(step="train", error=RunFailure("it broke")))
    printed = capsys.readouterr().out
    assert "> train    runs: config: train.lr 1 -> 2 (--set [train.lr])" in printed
    assert "x train    failed: it broke" in printed


def test_quiet_means_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as display:
        display.note("starting")
        display.show(StepStarted(step="train", reasons=("first run",)))
    assert capsys.readouterr().out == ""


def test_many_reasons_are_counted() -> None:
    assert shortened(["a", "b", "c"]) == "a; b; c"
    assert shortened(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
