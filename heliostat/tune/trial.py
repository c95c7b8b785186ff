"""One trial of a sweep: what it trains, how it went, and the record that says it has ended.

A trial is a training job of one rank in a directory of its own. `trial.json` is written there when it ends, so a sweep
that is started again takes what has ended from its record and goes on with the rest from its last checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, ValidationError

from heliostat.errors import CheckpointError, UserError
from heliostat.references import did_you_mean
from heliostat.train import checkpoint, telemetry
from heliostat.train.job import TrainJob
from heliostat.values import Frozen

SETTINGS = {"train.lr": "learning_rate", "train.weight_decay": "weight_decay"}
"""Paths of the experiment file that a trial may change, and what they are called in `TrainSettings`."""
PARAMS = "train.params."
NEVER = 1 << 31
"""Steps between checkpoints: a trial commits one at the end of each epoch, and none between."""
_RECORD = "trial.json"


class SweepSettings(Frozen):
    """How much to search, for what, and on how much."""

    trials: PositiveInt
    epochs: PositiveInt
    """Of each trial, at most."""
    metric: str
    mode: Literal["max", "min"]
    seed: int
    directory: str
    """On storage that all nodes share."""
    num_concurrent: PositiveInt
    cpus_per_trial: PositiveInt = 1


class TrialReport(Frozen):
    """How one trial went."""

    index: int
    params: dict[str, Any]
    """Path in the experiment file -> the value tried."""
    state: Literal["finished", "stopped", "failed"]
    """`stopped` early by the scheduler, or `failed` with an error."""
    epochs: tuple[dict[str, float], ...]
    """Validation metrics by epoch."""
    checkpoint: str | None
    """The committed checkpoint of its best epoch."""
    error: str | None = None


def trial_job(base: TrainJob, params: Mapping[str, Any], settings: SweepSettings, index: int) -> TrainJob:
    """`base` on one rank, with the parameters of a trial, in a directory of its own.

    Raises:
        UserError: a path that cannot be varied.

    """
    unknown = [path for path in params if path not in SETTINGS and not path.startswith(PARAMS)]
    if unknown:
        raise UserError(
            f"'{unknown[0]}' cannot be varied{did_you_mean(unknown[0], SETTINGS)}",
            where="tune.space",
            next_step=f"vary {', '.join(SETTINGS)} or {PARAMS}NAME",
        )
    changed = {
        **{SETTINGS[path]: value for path, value in params.items() if path in SETTINGS},
        **{name: getattr(settings, name) for name in ("epochs", "metric", "mode")},
        "checkpoint_every_steps": NEVER,
        "keep_checkpoints": 1,
    }
    task_params = {path.removeprefix(PARAMS): value for path, value in params.items() if path.startswith(PARAMS)}
    return base.model_copy(
        update={
            "params": {**base.params, **task_params},
            "settings": base.settings.model_copy(update=changed),
            "plan": base.plan.on_one_device(),
            "directory": str(Path(settings.directory).absolute() / f"trial-{index:03d}"),
        }
    )


def write_record(
    job: TrainJob, index: int, params: Mapping[str, Any], *, stopped: bool = False, error: str | None = None
) -> TrialReport:
    """Say how a trial ended, in its directory."""
    settings = job.settings
    best = checkpoint.best(Path(job.directory) / "checkpoints", settings.metric, settings.mode)
    records = telemetry.epochs(telemetry.file_of(job.directory, 0))
    report = TrialReport(
        index=index,
        params=dict(params),
        state="failed" if error else "stopped" if stopped else "finished",
        epochs=tuple(record.metrics for record in records),
        checkpoint=str(best) if best else None,
        error=error,
    )
    Path(job.directory).mkdir(parents=True, exist_ok=True)
    draft = Path(job.directory) / f".{_RECORD}.draft"
    draft.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    draft.rename(Path(job.directory) / _RECORD)
    return report


def read_record(job: TrainJob, params: Mapping[str, Any]) -> TrialReport | None:
    """How the trial of these parameters ended, or None if it has not, or if its checkpoint is gone."""
    try:
        report = TrialReport.model_validate_json((Path(job.directory) / _RECORD).read_bytes())
        if report.checkpoint:
            checkpoint.check_identity(Path(report.checkpoint), job.identity)
            checkpoint.verify(report.checkpoint)
    except (OSError, ValidationError, CheckpointError):
        return None
    return report if report.params == params else None
