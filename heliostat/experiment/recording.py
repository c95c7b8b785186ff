"""A step's child run in MLflow: opened in the process that runs the step, closed with what came of it.

It is wrapped around the step from outside, so that how a run is recorded is no part of what its result depends on.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mlflow.exceptions import MlflowException

from heliostat.experiment.background import repeating
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.tracking import Point, Tracker
from heliostat.train import telemetry

LOG_EVERY_S = 5.0
"""How far MLflow is behind the telemetry."""


def recorded(run: Callable[[StepContext], StepResult], context: StepContext) -> StepResult:
    """Call `run` inside a child run of the experiment's run; the result says which (`run_id`).

    `context.extra` brings `tracking_uri` and `parent_run`, and takes `run_id` along to the step;
    `tags` are for the child run.
    """
    tracker = Tracker(context.extra["tracking_uri"])
    run_id = tracker.open_step(context.extra["parent_run"], context.step, tags=context.extra["tags"])
    try:
        tracker.log_params(run_id, context.options)
        with following(tracker, run_id, context.workdir):
            result = run(replace(context, extra={**context.extra, "run_id": run_id}))
        tracker.log_metrics(run_id, result.metrics)
        tracker.log_json(run_id, result.outputs, "outputs.json")
    except BaseException as error:
        tracker.close(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.close(run_id, "FINISHED")
    return result.model_copy(update={"outputs": {**result.outputs, "run_id": run_id}})


@contextmanager
def following(tracker: Tracker, run_id: str, directory: Path) -> Iterator[None]:
    """Log the telemetry in `directory` as it is written, for the length of a `with` block; also of work that fails."""
    tail = telemetry.Tail(telemetry.file_of(directory, 0))
    pending: list[telemetry.AnyRecord] = []

    def log() -> None:
        pending.extend(tail.poll())
        if pending:
            tracker.log_series(run_id, curve_of(pending))
            pending.clear()

    def follow() -> None:
        with suppress(MlflowException):  # what could not be logged is still pending
            log()

    try:
        with repeating(LOG_EVERY_S, follow):
            yield
    finally:
        log()


def curve_of(records: Iterable[telemetry.AnyRecord]) -> dict[str, list[Point]]:
    """What rank 0 said of every step, and the metrics of every epoch."""
    curve: dict[str, list[Point]] = {}
    for record in records:
        for name, value in _values(record).items():
            curve.setdefault(name, []).append((record.step, value))
    return curve


def _values(record: telemetry.AnyRecord) -> dict[str, float]:
    match record:
        case telemetry.StepRecord():
            memory = {} if record.memory_bytes is None else {"memory_bytes": float(record.memory_bytes)}
            return {
                "loss": record.loss,
                "gradient_norm": record.gradient_norm,
                "step_s": record.step_s,
                "elements_per_s": record.elements_per_s,
                **{f"{part}_s": seconds for part, seconds in record.parts.items()},
                **memory,
            }
        case telemetry.EpochRecord():
            return {f"validation_{name}": value for name, value in record.metrics.items()}
        case telemetry.AttemptRecord():
            return {}
