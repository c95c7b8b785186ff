"""A step's child run holds what came of it, also when it failed."""

from pathlib import Path

import pytest

from heliostat.errors import RunFailure
from heliostat.experiment.recording import curve_of, recorded
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.tracking import Tracker
from heliostat.experiment.tracking_store import initialise
from heliostat.train.telemetry import EpochRecord, StepRecord, Writer, file_of, read


def write_telemetry(directory: Path) -> None:
    with Writer(file_of(directory, 0)) as writer:
        for step in (1, 2):
            writer.write(
                StepRecord(
                    step=step,
                    loss=1 / step,
                    gradient_norm=2.0,
                    num_elements=8,
                    passes_s=0.5,
                    wait_s=0.25,
                    sync_s=0.25,
                    update_s=0.25,
                    memory_bytes=100 if step == 1 else None,
                    time=float(step),
                )
            )
        writer.write(EpochRecord(epoch=1, step=2, metrics={"auc": 0.7}, time=3.0))


def test_the_curve_comes_from_the_telemetry(tmp_path: Path) -> None:
    write_telemetry(tmp_path)
    curve = curve_of(read(file_of(tmp_path, 0)))
    assert curve["loss"] == [(1, 1.0), (2, 0.5)]
    assert curve["elements_per_s"] == [(1, 8.0), (2, 8.0)]
    assert (curve["passes_s"][0], curve["wait_s"][0], curve["step_s"][0]) == ((1, 0.25), (1, 0.25), (1, 1.0))
    assert curve["memory_bytes"] == [(1, 100.0)]
    assert curve["validation_auc"] == [(2, 0.7)]


def test_a_step_is_recorded_and_says_where(tmp_path: Path) -> None:
    uri = initialise(tmp_path)
    tracker = Tracker(uri)
    parent = tracker.open_run("experiment", "run", config={}, tags={})
    context = StepContext(
        step="train",
        options={"train": {"lr": 0.1}},
        inputs={},
        workdir=tmp_path / "work",
        events=tmp_path / "events",
        extra={"tracking_uri": uri, "parent_run": parent, "tags": {"heliostat.cluster": "emulated"}},
    )

    def train(context: StepContext) -> StepResult:
        write_telemetry(context.workdir)
        return StepResult(outputs={"inside": context.extra["run_id"]}, metrics={"auc": 0.7})

    result = recorded(train, context)
    run = tracker.client.get_run(result.outputs["run_id"])
    assert result.outputs["inside"] == result.outputs["run_id"]
    assert (run.info.status, run.data.params["train.lr"], run.data.metrics["auc"]) == ("FINISHED", "0.1", 0.7)
    assert run.data.tags["heliostat.cluster"] == "emulated"
    assert len(tracker.client.get_metric_history(run.info.run_id, "loss")) == 2

    def fail(context: StepContext) -> StepResult:
        write_telemetry(context.workdir)
        raise RunFailure("it broke")

    with pytest.raises(RunFailure):
        recorded(fail, context)
    runs = tracker.client.search_runs([run.info.experiment_id], filter_string="attributes.status = 'FAILED'")
    assert [failed.data.tags["heliostat.step"] for failed in runs] == ["train"]
    assert runs[0].data.metrics["loss"] == 0.5
