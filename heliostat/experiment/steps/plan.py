"""Step `plan`: profile the model, measure the devices, choose the parallel plan."""

import time
from collections.abc import Callable
from functools import partial

from heliostat.cluster.discovery import discover
from heliostat.cluster.spec import ClusterSpec
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import data
from heliostat.placement.constraints import Constraints
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.planner import plan as choose_plan
from heliostat.train.calibrate import calibrate
from heliostat.train.execution import EXECUTION, RUNNABLE
from heliostat.train.profile import profile_task
from heliostat.train.step_timing import with_timings

SETTLE_S = 0.5
READS = ("seed", "cluster.cpus_per_device", "plan", "train.task", "train.params", "train.global_batch")


def run(context: StepContext) -> StepResult:
    """Profile on the meta device, time real steps on every free device at once, plan."""
    options = context.options
    version = data.version_of(context.inputs["data"])
    cpus_per_device = int(options["cluster.cpus_per_device"])
    constraints = Constraints(
        global_batch=options["train.global_batch"],
        execution=EXECUTION,
        pins=RUNNABLE.model_copy(update=dict(options["plan"])),
    )
    context.progress(0, 2, "profiling the model")
    workload = profile_task(options["train.task"], version, options["train.params"])
    context.progress(1, 2, "measuring the devices")
    measured = calibrate(
        options["train.task"],
        version,
        options["train.params"],
        cluster=settled(partial(discover, cpus_per_device)),
        global_batch=constraints.global_batch,
        cpus_per_device=cpus_per_device,
    )
    workload = with_timings(workload, measured.timings, measured.gang_overhead_s)
    chosen = choose_plan(workload, measured.cluster, constraints)
    return StepResult(
        outputs={
            "plan": chosen,
            "wanted": constraints,
            "workload": workload,
            "cluster": measured.cluster,
        },
        metrics={
            "predicted_step_s": chosen.prediction.step_time_s,
            **{f"predicted_{part}_s": value for part, value in chosen.prediction.stages[0].seconds.items()},
            "predicted_memory_bytes": float(max(chosen.prediction.memory_bytes)),
            "num_ranks": float(chosen.num_ranks),
        },
    )


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
