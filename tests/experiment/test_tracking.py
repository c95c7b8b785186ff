"""Runs are written to a real sqlite store."""

import pickle
from pathlib import Path

import pytest

from heliostat.experiment.tracking import Tracker, flatten
from heliostat.experiment.tracking_store import initialise


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(initialise(tmp_path_factory.mktemp("store")))


def test_config_becomes_dotted_params_and_an_artifact(tracker: Tracker) -> None:
    config = {"name": "x", "train": {"lr": 0.1, "params": {"width": 8}}, "tune": None}
    run_id = tracker.open_run("config", "first", config=config, tags={"who": "me"})

    run = tracker.client.get_run(run_id)
    assert run.data.params == {"name": "x", "train.lr": "0.1", "train.params.width": "8", "tune": "None"}
    assert run.data.tags["who"] == "me"
    assert run.info.run_name == "first"
    artifacts = Path(run.info.artifact_uri)
    assert artifacts.is_relative_to(Path(tracker.uri.removeprefix("sqlite:///")).parent / "artifacts")
    assert '"width": 8' in (artifacts / "config.json").read_text()


def test_steps_are_children(tracker: Tracker) -> None:
    parent = tracker.open_run("steps", "parent", config={}, tags={})
    child = tracker.open_step(parent, "train", tags={"key": "abc"})
    run = tracker.client.get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["heliostat.step"] == "train"
    assert run.data.tags["key"] == "abc"
    assert run.info.experiment_id == tracker.client.get_run(parent).info.experiment_id


def test_long_series_and_many_params_go_in_batches(tracker: Tracker) -> None:
    run_id = tracker.open_run("batches", "run", config={}, tags={})
    tracker.log_params(run_id, {f"p{index}": index for index in range(250)})
    tracker.log_series(run_id, {"loss": [(step, 1.0 / (step + 1)) for step in range(2100)], "auc": [(0, 0.5)]})

    run = tracker.client.get_run(run_id)
    assert len(run.data.params) == 250
    assert run.data.metrics == {"loss": pytest.approx(1 / 2100), "auc": 0.5}
    history = tracker.client.get_metric_history(run_id, "loss")
    assert sorted(metric.step for metric in history) == list(range(2100))


def test_metrics_that_are_not_numbers_are_kept(tracker: Tracker) -> None:
    run_id = tracker.open_run("nan", "run", config={}, tags={})
    tracker.log_metrics(run_id, {"loss": float("nan")}, step=3)
    (metric,) = tracker.client.get_metric_history(run_id, "loss")
    assert metric.value != metric.value
    assert metric.step == 3


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_its_status(tracker: Tracker, status: str) -> None:
    run_id = tracker.open_run("status", status, config={}, tags={})
    assert tracker.client.get_run(run_id).info.status == "RUNNING"
    tracker.tag(run_id, {"late": "yes"})
    tracker.close(run_id, status)  # type: ignore[arg-type]
    run = tracker.client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags["late"] == "yes"


def test_a_worker_needs_the_address_alone(tracker: Tracker) -> None:
    run_id = tracker.open_run("pickle", "run", config={}, tags={})
    copy = pickle.loads(pickle.dumps(tracker))
    copy.log_metrics(run_id, {"auc": 0.7})
    assert tracker.client.get_run(run_id).data.metrics == {"auc": 0.7}


def test_flatten() -> None:
    assert list(flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]})) == [("a.b", 1), ("d", [1, 2])]


def test_closing_a_family_ends_children_that_did_not_end_themselves(tracker: Tracker) -> None:
    parent = tracker.open_run("family", "parent", config={}, tags={})
    done, left = tracker.open_step(parent, "data", tags={}), tracker.open_step(parent, "train", tags={})
    tracker.close(done, "FINISHED")
    tracker.close_family(parent, "FAILED")
    assert [tracker.client.get_run(run).info.status for run in (parent, done, left)] == ["FAILED", "FINISHED", "KILLED"]
