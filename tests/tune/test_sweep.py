from pathlib import Path
from typing import Any

import pytest

from heliostat.data.encoder import Encoder
from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure, UserError
from heliostat.train import checkpoint, telemetry
from heliostat.train.job import TrainJob, TrainSettings
from heliostat.train.loop import execute
from heliostat.tune.space import Choice, Space, Uniform
from heliostat.tune.sweep import SweepReport, sweep
from heliostat.tune.trial import SweepSettings, TrialReport, read_record, trial_job, write_record
from tests.placement.plans import data_parallel

TOY = f"{Path(__file__).parents[1] / 'train' / 'toy.py'}:Toy"
SPACE: Space = {"train.lr": Uniform(uniform=(0.01, 0.2)), "train.params.width": Choice(choice=(4, 8))}


@pytest.fixture
def base(tmp_path: Path) -> TrainJob:
    """A job on two uneven ranks, as the planner leaves it."""
    data = DatasetVersion(
        uri="nowhere",
        name="toy",
        version=0,
        label="label",
        num_rows={},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(numeric=(), categorical=()),
    )
    return TrainJob(
        task=TOY,
        params={"width": 16, "dropout": 0.1},
        data=data,
        plan=data_parallel([("cpu", 15, 10), ("cpu", 9, 9)]),
        settings=TrainSettings(epochs=9, learning_rate=0.05, metric="accuracy", seed=3),
        directory=str(tmp_path / "main"),
    )


@pytest.fixture
def settings(tmp_path: Path) -> SweepSettings:
    return SweepSettings(
        trials=6, epochs=4, metric="brier", mode="min", seed=7, directory=str(tmp_path / "sweep"), num_concurrent=2
    )


def test_a_trial_is_the_base_job_on_one_rank_with_its_own_parameters(base: TrainJob, settings: SweepSettings) -> None:
    job = trial_job(base, {"train.lr": 0.1, "train.weight_decay": 0.0, "train.params.width": 4}, settings, 2)
    assert job.directory == f"{settings.directory}/trial-002"
    assert job.params == {"width": 4, "dropout": 0.1}
    assert (job.settings.learning_rate, job.settings.weight_decay, job.settings.seed) == (0.1, 0.0, 3)
    assert (job.settings.epochs, job.settings.metric, job.settings.mode) == (4, "brier", "min")
    (whole,) = job.plan.stages
    assert [(replica.num_samples, replica.micro_batch) for replica in whole.replicas] == [(24, 10)]


def test_what_cannot_be_varied_is_named(base: TrainJob, settings: SweepSettings) -> None:
    with pytest.raises(UserError, match=r"'train.lrr' cannot be varied \(did you mean 'train.lr'\?\)"):
        trial_job(base, {"train.lrr": 0.1}, settings, 0)


def test_a_record_counts_only_with_its_parameters_and_its_checkpoint(base: TrainJob, settings: SweepSettings) -> None:
    params: dict[str, Any] = {"train.params.width": 4}
    job = trial_job(base, params, settings, 0)
    assert read_record(job, params) is None
    execute(job, num_threads=1)
    report = write_record(job, 0, params)
    assert (report.state, len(report.epochs)) == ("finished", 4)
    assert read_record(job, params) == report
    assert read_record(job, {"train.params.width": 8}) is None
    assert read_record(trial_job(base, {"train.params.width": 8}, settings, 0), params) is None
    assert report.checkpoint is not None
    (Path(report.checkpoint) / "model" / "__0_0.distcp").write_bytes(b"half")
    assert read_record(job, params) is None


def test_the_best_trial_is_the_one_with_the_best_epoch() -> None:
    trials = tuple(
        TrialReport(
            index=i,
            params={},
            state="finished",
            epochs=tuple({"auc": v} for v in values),
            checkpoint="there" if values else None,
        )
        for i, values in enumerate([[0.6, 0.7], [], [0.8, 0.5], [0.8]])
    )
    assert SweepReport(trials=trials, metric="auc", mode="max").best.index == 2
    assert SweepReport(trials=trials, metric="auc", mode="min").best.index == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_tries_what_the_seed_says_and_is_not_repeated(base: TrainJob, settings: SweepSettings) -> None:
    heard: list[tuple[int, int]] = []
    report = sweep(base, SPACE, settings, lambda index, epoch: heard.append((index, epoch.epoch)))
    assert [trial.index for trial in report.trials] == list(range(6))
    # ASHA never stops the first that comes to an epoch, whichever trial that is
    states = {trial.state for trial in report.trials}
    assert "finished" in states
    assert states <= {"finished", "stopped"}
    assert sorted(heard) == [(t.index, n + 1) for t in report.trials for n in range(len(t.epochs))]
    assert report.best.checkpoint is not None
    best_epoch = min(report.best.epochs, key=lambda epoch: epoch["brier"])
    assert checkpoint.verify(report.best.checkpoint).metrics == best_epoch
    # again, with one trial undone: only that one runs
    undone = Path(settings.directory) / "trial-004"
    (undone / "trial.json").unlink()
    heard.clear()
    again = sweep(base, SPACE, settings, lambda index, epoch: heard.append((index, epoch.epoch)))
    assert {index for index, _ in heard} == {4}
    assert [trial.params for trial in again.trials] == [trial.params for trial in report.trials]
    attempts = [r for r in telemetry.read(telemetry.file_of(undone, 0)) if isinstance(r, telemetry.AttemptRecord)]
    assert [attempt.step for attempt in attempts] == [0, len(report.trials[4].epochs) * 4]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_fails_leaves_the_others_alone(base: TrainJob, settings: SweepSettings) -> None:
    space: Space = {"train.params.fault": Choice(choice=("", "nan row"))}
    report = sweep(base, space, settings.model_copy(update={"trials": 4, "epochs": 1, "seed": 4}))
    states = {trial.params["train.params.fault"]: trial.state for trial in report.trials}
    assert states == {"": "finished", "nan row": "failed"}
    failed = next(trial for trial in report.trials if trial.state == "failed")
    assert failed.error is not None
    assert "not a finite number" in failed.error
    assert report.best.params == {"train.params.fault": ""}
    failing: Space = {"train.params.fault": Choice(choice=("mean",))}
    every = settings.model_copy(update={"trials": 1, "directory": settings.directory + "-2"})
    with pytest.raises(TrainingFailure, match=r"every trial of the sweep failed(.|\n)*must return"):
        sweep(base, failing, every)
