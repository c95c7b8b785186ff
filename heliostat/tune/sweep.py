"""Search: several trials side by side on Ray Tune, poor ones stopped early by ASHA.

Every trial is run by the same executor as any training, inside a Tune actor; actors are reused, and one that has read
the data keeps it. What is tried depends on the seed alone. Which trials are stopped early depends on who comes to an
epoch first, and may differ between runs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from heliostat.errors import HeliostatError, TrainingFailure
from heliostat.placement import gang
from heliostat.train import telemetry
from heliostat.train.job import TrainJob
from heliostat.train.loop import execute
from heliostat.tune.space import Space, sample
from heliostat.tune.trial import SweepSettings, TrialReport, read_record, trial_job, write_record
from heliostat.values import Frozen

REDUCTION = 2
"""ASHA lets the better half go on at epochs 1, 2, 4, ...: a small sweep has no more to spare."""

OnEpoch = Callable[[int, telemetry.EpochRecord], None]
"""Called in the calling process with a trial's index and the epoch it has ended."""


class SweepReport(Frozen):
    """All trials, in the order of their index."""

    trials: tuple[TrialReport, ...]
    metric: str
    mode: Literal["max", "min"]

    @property
    def best(self) -> TrialReport:
        """The trial with the best epoch, the first of equals; there is always one that ended an epoch."""
        sign = 1 if self.mode == "max" else -1
        tried = [trial for trial in self.trials if trial.checkpoint]
        return max(tried, key=lambda trial: max(sign * epoch[self.metric] for epoch in trial.epochs))


def sweep(base: TrainJob, space: Space, settings: SweepSettings, on_epoch: OnEpoch | None = None) -> SweepReport:
    """Train `base` with every sampled set of parameters, and compare.

    A sweep that was interrupted goes on where it was: trials that ended are not run again.

    Raises:
        UserError: a path that cannot be varied.
        TrainingFailure: every trial failed.

    """
    samples = sample(space, num_trials=settings.trials, seed=settings.seed)
    jobs = [trial_job(base, params, settings, index) for index, params in enumerate(samples)]
    left = [index for index, job in enumerate(jobs) if read_record(job, samples[index]) is None]
    if left:
        _run(jobs, samples, left, settings, on_epoch)
    reports = [read_record(job, params) for job, params in zip(jobs, samples, strict=True)]
    trials = tuple(report for report in reports if report is not None)
    if not any(trial.checkpoint for trial in trials):
        raise TrainingFailure(
            "every trial of the sweep failed",
            where=settings.directory,
            got=next((trial.error for trial in trials), None),
            next_step="narrow the search space, or run one training with the parameters of a trial",
        )
    return SweepReport(trials=trials, metric=settings.metric, mode=settings.mode)


def _run(
    jobs: Sequence[TrainJob],
    samples: Sequence[Mapping[str, Any]],
    left: Sequence[int],
    settings: SweepSettings,
    on_epoch: OnEpoch | None,
) -> None:
    """Run the trials that are left; each leaves its record."""
    # Tune's own loggers would write every result three more times.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    trainable = tune.with_parameters(
        _trial, jobs=list(jobs), samples=list(samples), num_threads=settings.cpus_per_trial
    )
    kinds = {replica.device_kind for stage in jobs[0].plan.stages for replica in stage.replicas}
    resources = gang.resources(kinds, settings.cpus_per_trial)
    tune.Tuner(
        tune.with_resources(trainable, {name.lower(): amount for name, amount in resources.items()}),
        param_space={"index": tune.grid_search(list(left))},
        tune_config=tune.TuneConfig(
            metric=settings.metric,
            mode=settings.mode,
            scheduler=ASHAScheduler(time_attr="epoch", max_t=settings.epochs, reduction_factor=REDUCTION),
            max_concurrent_trials=settings.num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=uuid4().hex,
            storage_path=str(Path(settings.directory, "ray").absolute()),
            callbacks=[_Recorder(jobs, samples, on_epoch)],
            failure_config=tune.FailureConfig(max_failures=jobs[0].settings.max_restarts),
            verbose=0,
        ),
    ).fit()


def _trial(
    config: Mapping[str, int], jobs: Sequence[TrainJob], samples: Sequence[Mapping[str, Any]], num_threads: int
) -> None:
    """One trial, in its actor: train, and let the scheduler decide after every epoch.

    An error raised on purpose ends it with a record; running it again would not help.
    """
    index = config["index"]
    job = jobs[index]
    for epoch in telemetry.epochs(telemetry.file_of(job.directory, 0)):
        _report(epoch)  # those before an interruption: the scheduler has not heard of them
    try:
        execute(job, num_threads=num_threads, on_epoch=_report)
    except HeliostatError as error:
        write_record(job, index, samples[index], error=str(error))


def _report(epoch: telemetry.EpochRecord) -> None:
    tune.report({**epoch.metrics, "epoch": epoch.epoch, "record": epoch.model_dump()})


class _Recorder(tune.Callback):  # type: ignore[misc]
    """Passes on every epoch, and leaves the record of every trial that ended without one."""

    def __init__(
        self, jobs: Sequence[TrainJob], samples: Sequence[Mapping[str, Any]], on_epoch: OnEpoch | None
    ) -> None:
        self._jobs = jobs
        self._samples = samples
        self._on_epoch = on_epoch

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: object) -> None:
        """An epoch has ended."""
        if self._on_epoch is not None:
            self._on_epoch(trial.config["index"], telemetry.EpochRecord.model_validate(result["record"]))

    def on_trial_complete(self, *, trial: Trial, **_: object) -> None:
        """A trial has trained all its epochs, or was stopped before."""
        job, params = self._job(trial)
        if read_record(job, params) is None:
            num_epochs = len(telemetry.epochs(telemetry.file_of(job.directory, 0)))
            write_record(job, trial.config["index"], params, stopped=num_epochs < job.settings.epochs)

    def on_trial_error(self, *, trial: Trial, **_: object) -> None:
        """A trial's actor was lost once too often, or its task raised."""
        job, params = self._job(trial)
        write_record(job, trial.config["index"], params, error=str(trial.get_error()))

    def _job(self, trial: Trial) -> tuple[TrainJob, Mapping[str, Any]]:
        index = trial.config["index"]
        return self._jobs[index], self._samples[index]
