"""How much of the devices' peak a run uses: model FLOPs utilisation (Chowdhery et al. 2022, appendix B). Pure."""

from heliostat.cluster.catalogue import Catalogue, Dtype
from heliostat.errors import UserError
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.workload import WorkloadProfile

PASSES = 3
"""The work of a step over that of its forward passes: the backward pass has two products where they have one."""


def step_flops(workload: WorkloadProfile, plan: ParallelPlan) -> float:
    """What one step of the model must compute; what is recomputed does not count."""
    return PASSES * workload.forward_flops * plan.global_batch


def peak_flops(plan: ParallelPlan, catalogue: Catalogue) -> float | None:
    """Of all devices of the plan together, per second, in the type that the passes compute in.

    None where that is not known: of CPUs no table tells, and emulated devices are not what their names say.
    """
    if plan.cluster_origin == "emulated":
        return None
    total = 0.0
    for stage in plan.stages:
        for replica in stage.replicas:
            flops = _flops(catalogue, replica.device_kind, plan.strategy.execution.dtype)
            if flops is None:
                return None
            total += flops * stage.ranks_per_replica
    return total


def utilisation(workload: WorkloadProfile, plan: ParallelPlan, catalogue: Catalogue, step_s: float) -> float | None:
    """The part of the devices' peak that steps of `step_s` use; None where the peak is not known."""
    peak = peak_flops(plan, catalogue)
    return None if peak is None or step_s == 0 else step_flops(workload, plan) / (peak * step_s)


def _flops(catalogue: Catalogue, kind: str, dtype: Dtype) -> float | None:
    """Of a kind of device: a type of the catalogue, and after an `@` how fast it was measured to be."""
    try:
        return catalogue.find(kind.partition("@")[0]).flops(dtype)
    except UserError:
        return None
