"""Step `train`: run the plan on exactly placed Ray Train workers, and hold the prediction against what was measured."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from heliostat.cluster.discovery import discover
from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import HeliostatError
from heliostat.experiment.background import repeating
from heliostat.experiment.step import Artifact, StepContext, StepResult
from heliostat.experiment.steps import data, plan
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.placement import Placement
from heliostat.placement.solver import solve
from heliostat.train import checkpoint, telemetry
from heliostat.train.gauges import Gauges
from heliostat.train.job import TrainJob, TrainReport, TrainSettings
from heliostat.train.launcher import launch
from heliostat.train.utilisation import utilisation
from heliostat.train.verify.verification import Verification

READS = ("seed", "cluster.cpus_per_device", "train", "tune.metric", "tune.mode")
UTILISATION = "model_flops_utilisation"
"""The metric of the devices' peak that was used; there is none where the peak is not known."""
PREDICTED = {
    "passes": ("compute", "recompute", "tensor", "gather", "host"),
    "wait": ("bubble",),
    "sync": ("sync",),
    "update": ("optimizer",),
}
"""By a measured part of a step, what the prediction calls it."""
PROGRESS_EVERY_S = 0.3
FREE_TIMEOUT_S = 30.0
"""A worker group that died gives its devices back within seconds; a lost node never does."""


def settings_from(train: Mapping[str, Any], seed: int, objective: Mapping[str, Any]) -> TrainSettings:
    """Training settings from the sections `train` and, for the metric that says what is best, `tune`."""
    return TrainSettings(
        epochs=train["epochs"],
        learning_rate=train["lr"],
        weight_decay=train["weight_decay"],
        checkpoint_every_steps=train["checkpoint_every_steps"],
        max_restarts=train["max_restarts"],
        precision=train["precision"],
        clip_norm=train["clip_norm"],
        compile=train["compile"],
        patience=train["early_stop"] and train["early_stop"]["patience"],
        verify=train["verify"],
        trace_steps=train["trace_steps"],
        seed=seed,
        metric=objective["metric"],
        mode=objective["mode"],
    )


def run(context: StepContext) -> StepResult:
    """Train, going on from the last committed checkpoint if an earlier attempt left one."""
    job = job_of(context)
    with reporting_progress(context, Path(job.directory)):
        report = launch(job, placing(context), cpus_per_rank=int(context.options["cluster.cpus_per_device"]))
    return _result(job.plan, report, Verification.read(Path(job.directory)), _used(context, report))


def job_of(context: StepContext) -> TrainJob:
    """What the experiment trains, with the plan of its step `plan`."""
    options = context.options
    return TrainJob(
        task=options["train"]["task"],
        params=options["train"]["params"],
        data=data.version_of(context.inputs["data"]),
        plan=plan.plan_of(context.inputs["plan"]),
        settings=settings_from(
            options["train"],
            options["seed"],
            {"metric": options["tune.metric"], "mode": options["tune.mode"]},
        ),
        directory=str(context.workdir),
    )


def placing(context: StepContext) -> Callable[[], Placement]:
    """Places that plan on devices that are free when it is called."""
    plan_result = context.inputs["plan"]
    return partial(
        place_when_free,
        plan.plan_of(plan_result),
        plan.cluster_of(plan_result),
        int(context.options["cluster.cpus_per_device"]),
    )


def place_when_free(chosen: ParallelPlan, measured: ClusterSpec, cpus_per_device: int) -> Placement:
    """Place `chosen` on devices that are free now, waiting for those that are just being given back.

    Raises:
        PlacementError: they did not come free in time.

    """
    deadline = time.monotonic() + FREE_TIMEOUT_S
    while True:
        try:
            return solve(chosen, discover(cpus_per_device).with_speeds_of(measured))
        except HeliostatError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@contextmanager
def reporting_progress(context: StepContext, directory: Path) -> Iterator[None]:
    """Turn the telemetry of rank 0 into progress of the step and Ray metrics for the length of a `with` block."""
    tail = telemetry.Tail(telemetry.file_of(directory, 0))
    gauges = Gauges(context.workdir.name)
    total = 0

    def report() -> None:
        nonlocal total
        for record in tail.poll():
            if isinstance(record, telemetry.AttemptRecord):
                total = record.total_steps
                context.progress(record.step, total, f"attempt from step {record.step}")
            elif isinstance(record, telemetry.StepRecord):
                context.progress(record.step, total, f"loss {record.loss:.4f}")
                gauges.show(record)

    with repeating(PROGRESS_EVERY_S, report):
        yield


def _used(context: StepContext, report: TrainReport) -> float | None:
    """The part of the devices' peak that the steps used; None where the peak is not known."""
    planned = context.inputs["plan"]
    workload, cluster = plan.workload_of(planned), plan.cluster_of(planned)
    return utilisation(workload, plan.plan_of(planned), cluster.catalogue, report.step_time_s)


def _result(
    chosen: ParallelPlan, report: TrainReport, verification: Verification | None, used: float | None
) -> StepResult:
    predicted_s = chosen.prediction.step_time_s
    return StepResult(
        outputs={"report": report, "verification": verification},
        artifacts=(
            Artifact(kind="checkpoint", uri=report.checkpoint, digest=checkpoint.weights_digest(report.checkpoint)),
        ),
        metrics={
            **{f"validation_{name}": value for name, value in report.metrics.items()},
            "predicted_step_s": predicted_s,
            "measured_step_s": report.step_time_s,
            "step_time_error": predicted_s / report.step_time_s - 1,
            "predicted_memory_bytes": float(max(chosen.prediction.memory_bytes)),
            "measured_memory_bytes": float(max(report.peak_memory_bytes)),
            "elements_per_s": report.elements_per_s,
            **({} if used is None else {UTILISATION: used}),
            "num_restarts": float(report.num_restarts),
            **{
                f"{said}_{part}_stage_{number}_s": seconds
                for number, parts in enumerate(parts_by_stage(chosen, report))
                for part, work in parts.items()
                for said, seconds in work._asdict().items()
            },
            **{
                f"{said}_stage_{number}_s": seconds
                for number, stage in enumerate(work_by_stage(chosen, report))
                for said, seconds in stage._asdict().items()
                if len(chosen.stages) > 1
            },
        },
    )


class StageWork(NamedTuple):
    """Seconds of a step of the busiest rank of a stage."""

    predicted: float
    measured: float


def work_by_stage(chosen: ParallelPlan, report: TrainReport) -> list[StageWork]:
    """How long every stage works and does not wait for others, as predicted and as measured."""
    found = []
    for cost, rank in zip(chosen.prediction.stages, busiest_ranks(chosen, report), strict=True):
        predicted_s = sum(cost.seconds.values()) - cost.seconds["bubble"] - cost.seconds["sync"]
        found.append(StageWork(predicted_s, report.compute_s[rank]))
    return found


def parts_by_stage(chosen: ParallelPlan, report: TrainReport) -> list[dict[str, StageWork]]:
    """Where the steps of every stage go, as predicted and as measured."""
    found = []
    for cost, rank in zip(chosen.prediction.stages, busiest_ranks(chosen, report), strict=True):
        named = {part: sum(cost.seconds.get(name, 0.0) for name in names) for part, names in PREDICTED.items()}
        measured = report.parts_s[rank]
        found.append({part: StageWork(named[part], seconds) for part, seconds in measured.items()})
    return found


def busiest_ranks(chosen: ParallelPlan, report: TrainReport) -> list[int]:
    """Of every stage the rank that works longest."""
    roles = [one.role for one in report.placement.ranks] if report.placement else range(chosen.num_ranks)
    rank_of = {role: rank for rank, role in enumerate(roles)}
    found, first = [], 0
    for stage in chosen.stages:
        ranks = [rank_of[role] for role in range(first, first + stage.num_ranks)]
        found.append(max(ranks, key=lambda rank: report.compute_s[rank]))
        first += stage.num_ranks
    return found


def report_of(result: StepResult) -> TrainReport:
    """The training report in a result of this step."""
    return TrainReport.model_validate(result.outputs["report"])


def verification_of(result: StepResult) -> Verification | None:
    """The checks before the first step, in a result of this step; None if none were asked for."""
    found = result.outputs["verification"]
    return None if found is None else Verification.model_validate(found)


def placement_of(result: StepResult) -> Placement:
    """Where the last attempt ran, in a result of this step."""
    placement = report_of(result).placement
    assert placement is not None, "the launcher fills it in"
    return placement


def missing(result: StepResult) -> str | None:
    """What is missing of the checkpoint; None when it is whole and the same."""
    artifact = result.artifacts[0]
    try:
        return (
            None if checkpoint.weights_digest(artifact.uri) == artifact.digest else f"checkpoint {artifact.uri} differs"
        )
    except HeliostatError as error:
        return f"checkpoint {artifact.uri} ({error.what})"
