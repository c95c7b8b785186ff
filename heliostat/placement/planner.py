"""The best data-parallel plan: which devices, what share each, which micro-batch.

For every number of replicas the fastest devices are taken and the global batch is divided so that the replicas finish
together: water-filling on the measured line `fixed + num_samples * sample_s`, rounded to whole samples by handing each
remaining sample to the replica that would finish first. The micro-batch is the largest that fits in memory.
"""

from collections.abc import Sequence

from pydantic import PositiveInt

from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.cost import predict, replica_memory_bytes
from heliostat.placement.plan import ParallelPlan, Refusal, Replica, Stage
from heliostat.placement.workload import StepTiming, WorkloadProfile
from heliostat.values import Frozen


class Constraints(Frozen):
    """What must hold, and what the user pinned."""

    global_batch: PositiveInt
    data_parallel: PositiveInt | None = None
    """Exact number of replicas; None lets the planner choose."""
    micro_batch: PositiveInt | None = None
    """Largest samples in one forward pass; None lets the planner choose."""


def plan(workload: WorkloadProfile, cluster: ClusterSpec, constraints: Constraints) -> ParallelPlan:
    """Choose the plan with the smallest predicted step time; ties go to fewer devices.

    Raises:
        PlanError: no device, a pinned number that cannot be had, or a model that fits no device.

    """
    devices = _fastest_first(workload, cluster)
    _check_pins(constraints, len(devices))
    counts = [constraints.data_parallel] if constraints.data_parallel else range(1, len(devices) + 1)
    candidates: list[ParallelPlan] = []
    refused: list[Refusal] = []
    for count in counts:
        if count > constraints.global_batch:
            break
        name = f"{count} replica{'s' if count > 1 else ''}"
        replicas = _divide(workload, devices[:count], constraints)
        if isinstance(replicas, str):
            refused.append(Refusal(candidate=name, reason=replicas))
        else:
            candidates.append(_as_plan(workload, cluster, replicas, constraints))
    if not candidates:
        raise _nothing_fits(workload, refused)
    ranked = sorted(candidates, key=lambda plan: (plan.prediction.step.total_s, plan.num_ranks))
    best = ranked[0]
    refused += [Refusal(candidate=_name(other), reason=_loss(other, best)) for other in ranked[1:]]
    return best.model_copy(update={"reason": _why(best, ranked), "refused": tuple(refused)})


def _fastest_first(workload: WorkloadProfile, cluster: ClusterSpec) -> list[Device]:
    devices = [device for node in cluster.nodes for device in node.devices]
    if not devices:
        raise PlanError("there is no free device to plan for", next_step="heliostat status")
    return sorted(devices, key=lambda device: (workload.timings[device.kind].sample_s, device.kind))


def _check_pins(constraints: Constraints, num_devices: int) -> None:
    if constraints.data_parallel and constraints.data_parallel > min(num_devices, constraints.global_batch):
        raise PlanError(
            f"plan.data_parallel asks for {constraints.data_parallel} replicas",
            got=f"{num_devices} free devices and a global batch of {constraints.global_batch} samples",
            next_step="lower plan.data_parallel, or leave it null for the planner to choose",
        )


def _divide(
    workload: WorkloadProfile, devices: Sequence[Device], constraints: Constraints
) -> tuple[Replica, ...] | str:
    """Replicas that finish together, or the reason why they cannot be had."""
    limits = [_largest_micro_batch(workload, device, len(devices)) for device in devices]
    if min(limits) < 1:
        device = devices[limits.index(min(limits))]
        least = replica_memory_bytes(workload, _replica(device, 1, 1), len(devices))
        return f"one sample needs {least:,} bytes on {device.kind}, which has {device.memory_bytes:,}"
    if constraints.micro_batch:
        if constraints.micro_batch > min(limits):
            return f"micro-batch {constraints.micro_batch} does not fit; the largest that does is {min(limits)}"
        limits = [constraints.micro_batch] * len(devices)
    timings = [workload.timings[device.kind] for device in devices]
    shares = balanced_shares(timings, constraints.global_batch, limits)
    return tuple(
        _replica(device, share, min(limit, share)) for device, share, limit in zip(devices, shares, limits, strict=True)
    )


def balanced_shares(timings: Sequence[StepTiming], total: int, micro_batches: Sequence[int]) -> list[int]:
    """Divide `total` samples so that all replicas finish as nearly together as whole samples allow.

    Every replica gets at least one sample. `micro_batches` are the largest forward passes of each.
    """
    per_sample = [
        max(timing.sample_s + timing.micro_batch_s / limit, 1e-12)
        for timing, limit in zip(timings, micro_batches, strict=True)
    ]
    fixed = [timing.optimizer_s + timing.micro_batch_s for timing in timings]
    finish_s = (total + sum(f / p for f, p in zip(fixed, per_sample, strict=True))) / sum(1 / p for p in per_sample)
    shares = [max(1, int((finish_s - f) / p)) for f, p in zip(fixed, per_sample, strict=True)]
    while sum(shares) > total:
        latest = max(
            (rank for rank in range(len(shares)) if shares[rank] > 1),
            key=lambda r: fixed[r] + shares[r] * per_sample[r],
        )
        shares[latest] -= 1
    while sum(shares) < total:
        soonest = min(range(len(shares)), key=lambda r: fixed[r] + (shares[r] + 1) * per_sample[r])
        shares[soonest] += 1
    return shares


def _largest_micro_batch(workload: WorkloadProfile, device: Device, num_replicas: int) -> int:
    states = replica_memory_bytes(workload, _replica(device, 1, 1), num_replicas) - workload.saved_bytes_per_sample
    room = device.memory_bytes - states
    return int(room // max(workload.saved_bytes_per_sample, 1.0)) if room > 0 else 0


def _replica(device: Device, num_samples: int, micro_batch: int) -> Replica:
    return Replica(device_kind=device.kind, num_samples=num_samples, micro_batch=micro_batch)


def _as_plan(
    workload: WorkloadProfile, cluster: ClusterSpec, replicas: tuple[Replica, ...], constraints: Constraints
) -> ParallelPlan:
    return ParallelPlan(
        workload=workload.name,
        cluster_origin=cluster.origin,
        global_batch=constraints.global_batch,
        stages=(Stage(first_block=0, end_block=len(workload.blocks), replicas=replicas),),
        prediction=predict(workload, cluster, replicas),
        reason="",
    )


def _name(plan: ParallelPlan) -> str:
    return f"{plan.num_ranks} replica{'s' if plan.num_ranks > 1 else ''}"


def _loss(other: ParallelPlan, best: ParallelPlan) -> str:
    step, least = other.prediction.step, best.prediction.step
    return (
        f"{1e3 * step.total_s:.1f} ms a step against {1e3 * least.total_s:.1f} "
        f"(compute {1e3 * step.compute_s:.1f}, synchronisation {1e3 * step.sync_s:.1f})"
    )


def _why(best: ParallelPlan, ranked: Sequence[ParallelPlan]) -> str:
    step = best.prediction.step
    bound = "synchronisation" if step.sync_s > step.compute_s else "compute"
    text = f"{_name(best)}: {1e3 * step.total_s:.1f} ms a step, bound by {bound}"
    if len(ranked) > 1:
        text += f"; the runner-up, {_name(ranked[1])}, takes {1e3 * ranked[1].prediction.step.total_s:.1f} ms"
    return text


def _nothing_fits(workload: WorkloadProfile, refused: Sequence[Refusal]) -> PlanError:
    return PlanError(
        f"no plan for {workload.name} fits these devices",
        got="; ".join(f"{refusal.candidate}: {refusal.reason}" for refusal in refused),
        next_step="use devices with more memory, a smaller model, or a smaller plan.micro_batch",
    )
