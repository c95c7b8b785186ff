"""A step's child run in MLflow: opened in the process that runs the step, closed with what came of it.

It is wrapped around the step from outside, so that how a run is recorded is no part of what its result depends on.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.tracking import Point, Tracker
from heliostat.train import telemetry


def recorded(run: Callable[[StepContext], StepResult], context: StepContext) -> StepResult:
    """Call `run` inside a child run of the experiment's run; the result says which (`run_id`).

    `context.extra` brings `tracking_uri` and `parent_run`, and takes `run_id` along to the step;
    `tags` are for the child run.
    """
    tracker = Tracker(context.extra["tracking_uri"])
    run_id = tracker.open_step(context.extra["parent_run"], context.step, tags=context.extra["tags"])
    try:
        tracker.log_params(run_id, context.options)
        result = run(replace(context, extra={**context.extra, "run_id": run_id}))
        tracker.log_series(run_id, training_curve(context.workdir))
        tracker.log_metrics(run_id, result.metrics)
        tracker.log_json(run_id, result.outputs, "outputs.json")
    except BaseException as error:
        tracker.close(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.close(run_id, "FINISHED")
    return result.model_copy(update={"outputs": {**result.outputs, "run_id": run_id}})


def training_curve(directory: Path) -> dict[str, list[Point]]:
    """Loss and times of every step and metrics of every epoch, from the telemetry in `directory`; empty without any."""
    file = telemetry.file_of(directory, 0)
    curve: dict[str, list[Point]] = {}
    for step in telemetry.steps(file):
        for name in ("loss", "compute_s", "sync_s"):
            curve.setdefault(name, []).append((step.step, getattr(step, name)))
    for epoch in telemetry.epochs(file):
        for name, value in epoch.metrics.items():
            curve.setdefault(f"validation_{name}", []).append((epoch.step, value))
    return curve
