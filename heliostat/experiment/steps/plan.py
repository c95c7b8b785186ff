"""Step `plan`: profile the model, measure the devices, choose the parallel plan or take the one that is given."""

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from heliostat.cluster.discovery import discover
from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import data
from heliostat.placement import plan_file
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.given_plan import given
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.planner import plan as choose_plan
from heliostat.placement.prediction import Prediction
from heliostat.placement.workload import WorkloadProfile
from heliostat.train.calibrate import calibrate
from heliostat.train.execution import RUNNABLE, execution_of
from heliostat.train.profile import profile_task
from heliostat.train.step_timing import with_timings

SETTLE_S = 0.5
READS = (
    "seed", "cluster.cpus_per_device", "plan", "train.task", "train.params", "train.global_batch", "train.precision",
    "train.compile",
)  # fmt: skip


def run(context: StepContext) -> StepResult:
    """Profile on the meta device, time real steps on every free device at once, plan."""
    options = context.options
    version = data.version_of(context.inputs["data"])
    cpus_per_device = int(options["cluster.cpus_per_device"])
    file, pins = options["plan"]["file"], pins_of(options["plan"])
    written = plan_file.load(Path(file)) if file else None
    context.progress(0, 2, "profiling the model")
    workload, pins = profile_task(options["train.task"], version, options["train.params"], pins)
    context.progress(1, 2, "measuring the devices")
    measured = calibrate(
        options["train.task"],
        version,
        options["train.params"],
        cluster=settled(partial(discover, cpus_per_device)),
        global_batch=options["train.global_batch"],
        cpus_per_device=cpus_per_device,
        precision=options["train.precision"],
    )
    workload = with_timings(workload, measured.timings, measured.gang_overhead_s)
    on_gpus = measured.cluster.origin != "emulated" and any(
        not kind.startswith("cpu") for kind in measured.cluster.count_by_kind()
    )
    constraints = Constraints(
        global_batch=options["train.global_batch"],
        execution=execution_of(options["train.precision"], compiled=options["train.compile"], on_gpus=on_gpus),
        pins=pins,
    )
    chosen = (
        given(written, workload, measured.cluster, constraints, where=file)
        if written
        else choose_plan(workload, measured.cluster, constraints)
    )
    return StepResult(
        outputs={
            "plan": chosen,
            "wanted": constraints,
            "workload": workload,
            "cluster": measured.cluster,
        },
        metrics={
            "predicted_step_s": chosen.prediction.step_time_s,
            **{f"predicted_{part}_s": value for part, value in busiest(chosen.prediction).items()},
            "predicted_memory_bytes": float(max(chosen.prediction.memory_bytes)),
            "num_ranks": float(chosen.num_ranks),
            "num_stages": float(len(chosen.stages)),
        },
    )


def pins_of(plan: Mapping[str, Any]) -> Pins:
    """What the section `plan` pins, with what the executor does not run.

    Raises:
        PlanError: they contradict.
    """
    asked = {name: value for name, value in plan.items() if value is not None and name != "file"}
    refused = {name: value for name, value in asked.items() if getattr(RUNNABLE, name) not in {None, value}}
    if refused:
        raise PlanError(
            "the executor cannot run what is pinned",
            where=", ".join(f"plan.{name}" for name in refused),
            got=", ".join(f"{name}: {str(value).lower()}" for name, value in refused.items()),
            next_step="leave it to the planner: null",
        )
    return RUNNABLE.model_copy(update=asked)


def facts_of(file: str | None) -> dict[str, str]:
    """What a plan depends on besides the configuration: what is in the plan file."""
    return {"plan file": hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]} if file else {}


def busiest(prediction: Prediction) -> Mapping[str, float]:
    """Seconds of a step by what they go to, of the stage that waits least for others."""
    return min(prediction.stages, key=lambda stage: stage.seconds["bubble"]).seconds


def settled(look: Callable[[], ClusterSpec]) -> ClusterSpec:
    """What is free once two looks agree: workers of the step before give their devices back one by one."""
    before = look()
    while True:
        time.sleep(SETTLE_S)
        after = look()
        if after == before:
            return after
        before = after


def plan_of(result: StepResult) -> ParallelPlan:
    """The plan in a result of this step."""
    return ParallelPlan.model_validate(result.outputs["plan"])


def cluster_of(result: StepResult) -> ClusterSpec:
    """The cluster that was planned for, with what was measured."""
    return ClusterSpec.model_validate(result.outputs["cluster"])


def workload_of(result: StepResult) -> WorkloadProfile:
    """What was planned for, in a result of this step."""
    return WorkloadProfile.model_validate(result.outputs["workload"])
