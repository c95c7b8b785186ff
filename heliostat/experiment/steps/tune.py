"""Step `tune`: a sweep over the search space, a trial on each device. The best competes with the main run."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from heliostat.experiment.candidates import Candidate
from heliostat.experiment.step import Artifact, StepContext, StepResult
from heliostat.experiment.steps import data, plan, train
from heliostat.experiment.tracking import Tracker
from heliostat.train import checkpoint
from heliostat.train.job import TrainJob
from heliostat.train.telemetry import EpochRecord
from heliostat.tune.space import Space
from heliostat.tune.sweep import OnEpoch, SweepReport, sweep
from heliostat.tune.trial import SweepSettings, TrialReport

READS = ("seed", "cluster.cpus_per_device", "train", "tune")
_BY_ITSELF = {"verify": False, "trace_steps": 0}
"""A trial is one process, so there is nothing to hold it against; and traces are of the training itself."""
_SPACE: TypeAdapter[Space] = TypeAdapter(Space)


def run(context: StepContext) -> StepResult:
    """Sweep, going on with the trials that an earlier attempt left, and record each trial as a run."""
    options, settings = context.options, context.options["tune"]
    cpus_per_device = int(options["cluster.cpus_per_device"])
    base = TrainJob(
        task=options["train"]["task"],
        params=options["train"]["params"],
        data=data.version_of(context.inputs["data"]),
        plan=plan.plan_of(context.inputs["plan"]),
        settings=train.settings_from({**options["train"], **_BY_ITSELF}, options["seed"], settings),
        directory=str(context.workdir),
    )
    sweep_settings = SweepSettings(
        trials=settings["trials"],
        epochs=settings["epochs"],
        metric=settings["metric"],
        mode=settings["mode"],
        seed=options["seed"],
        directory=str(context.workdir),
        num_concurrent=plan.cluster_of(context.inputs["plan"]).num_devices,
        cpus_per_trial=cpus_per_device,
    )
    report = sweep(base, _SPACE.validate_python(settings["space"]), sweep_settings, _progress(context, sweep_settings))
    run_ids = {str(trial.index): _record(context, trial) for trial in report.trials}
    best = report.best
    assert best.checkpoint is not None
    return StepResult(
        outputs={"report": report, "run_ids": run_ids},
        artifacts=(
            Artifact(kind="checkpoint", uri=best.checkpoint, digest=checkpoint.weights_digest(best.checkpoint)),
        ),
        metrics={f"best_validation_{name}": value for name, value in best_metrics(report, best).items()},
    )


def best_metrics(report: SweepReport, trial: TrialReport) -> dict[str, float]:
    """The metrics of the epoch that was best for the trial."""
    sign = 1 if report.mode == "max" else -1
    return max(trial.epochs, key=lambda epoch: sign * epoch[report.metric])


def report_of(result: StepResult) -> SweepReport:
    """The sweep's report in a result of this step."""
    return SweepReport.model_validate(result.outputs["report"])


def best_candidate(result: StepResult, params: Mapping[str, Any]) -> Candidate:
    """The best trial of a result of this step, over the task's main `params`."""
    report = report_of(result)
    trial = report.best
    assert trial.checkpoint is not None
    prefix = "train.params."
    tried = {path.removeprefix(prefix): value for path, value in trial.params.items() if path.startswith(prefix)}
    return Candidate(
        source=f"trial {trial.index}",
        params={**params, **tried},
        metrics=best_metrics(report, trial),
        checkpoint=trial.checkpoint,
        plan="one device",
        run_id=result.outputs["run_ids"][str(trial.index)],
    )


def missing(result: StepResult) -> str | None:
    """What is missing of the best trial's checkpoint; None when it is whole and the same."""
    return train.missing(result)


def _progress(context: StepContext, settings: SweepSettings) -> OnEpoch:
    done: dict[int, int] = {}

    def on_epoch(index: int, record: EpochRecord) -> None:
        done[index] = record.epoch
        text = f"trial {index}: {settings.metric} {record.metrics[settings.metric]:.4f}"
        context.progress(sum(done.values()), settings.trials * settings.epochs, text)

    return on_epoch


def _record(context: StepContext, trial: TrialReport) -> str:
    """Write a trial as a child of the step's run; returns its run id."""
    tracker = Tracker(context.extra["tracking_uri"])
    run_id = tracker.open_step(context.extra["run_id"], f"trial-{trial.index:03d}", tags={"state": trial.state})
    tracker.log_params(run_id, trial.params)
    names = sorted({name for epoch in trial.epochs for name in epoch})
    tracker.log_series(
        run_id,
        {
            f"validation_{name}": [(number, epoch[name]) for number, epoch in enumerate(trial.epochs, start=1)]
            for name in names
        },
    )
    tracker.close(run_id, "FAILED" if trial.error else "FINISHED")
    return run_id
