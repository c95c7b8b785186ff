"""Seconds of one step of a strategy, and where they go. Pure.

    step = pipeline (simulated) + gradient synchronisation that shows + optimizer

Gradient synchronisation with overlap shows what is longer than the last micro-batch's backward pass, and the last
block's part of it. ZeRO 2 and 3 synchronise inside the passes. The optimizer reads and writes a fixed number of bytes
per parameter that the rank updates.
"""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from heliostat.placement.block_time import update_s
from heliostat.placement.collective_time import collective_s
from heliostat.placement.device_time import element_bytes
from heliostat.placement.ground import StageHardware
from heliostat.placement.schedule import StageTimes, closed_form_s, simulate
from heliostat.placement.stage_time import PassTime, StageTimer, stage_parameters, syncs_inside
from heliostat.placement.strategy import StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile

BAND_WIDTH = 1.2816
"""Standard deviations either side of the mean that hold 80 % of a normal distribution."""
HOST_LINK_BYTES_PER_S = 2.0e10
"""Device to host and back for an offloaded optimizer: PCIe 4.0 with 16 lanes, as `links.PCIE_3_BYTES_PER_S` counts."""


class StageBreakdown(NamedTuple):
    """Seconds of one step on one stage, of its slowest replica."""

    compute_s: float
    recompute_s: float
    tensor_s: float
    gather_s: float
    host_s: float
    bubble_s: float
    sync_s: float
    optimizer_s: float


class StepPrediction(NamedTuple):
    """Seconds per step and where they go."""

    step_s: float
    stages: tuple[StageBreakdown, ...]
    in_flight: tuple[int, ...]
    """For each stage the most micro-batches (of one chunk) whose activations it holds."""
    uncertainty: float
    """Relative standard deviation of the step time about the prediction."""

    @property
    def band_s(self) -> tuple[float, float]:
        """Seconds between which four steps of five are expected."""
        factor = exp(BAND_WIDTH * self.uncertainty)
        return self.step_s / factor, self.step_s * factor


def predict_step(
    workload: WorkloadProfile,
    strategy: Strategy,
    hardware: Sequence[StageHardware],
    timer: StageTimer,
    *,
    exact: bool = True,
) -> StepPrediction:
    """Predict one step.

    Args:
        workload: what is run.
        strategy: how it is split.
        hardware: of each stage.
        timer: holds the constants that all types share.
        exact: simulate the pipeline; else its closed form, a lower bound.
    """
    many = strategy.num_micro_batches
    slowest = [
        slowest_pass(workload, stage, place, strategy, timer)
        for stage, place in zip(strategy.stages, hardware, strict=True)
    ]
    times = [
        pass_times(one, share, workload, stage, place, strategy)
        for (one, share), stage, place in zip(slowest, strategy.stages, hardware, strict=True)
    ]
    in_flight: tuple[int, ...]
    if len(times) == 1:
        pipeline_s, in_flight = many * (times[0].forward_s + times[0].backward_s), (1,)
    elif exact:
        line = simulate(strategy.schedule, [_chunks(one, strategy.chunks) for one in times], many)
        pipeline_s, in_flight = line.total_s, line.in_flight
    else:
        pipeline_s, in_flight = closed_form_s(times, many), tuple([0] * len(times))
    breakdowns, step_s = [], 0.0
    for (one, share), stage, place in zip(slowest, strategy.stages, hardware, strict=True):
        synchronising_s = sync_s(workload, stage, place, strategy, one)
        updating_s = optimizer_s(workload, stage, place, strategy, timer)
        per_step = share * many
        step_s = max(step_s, pipeline_s + synchronising_s + updating_s)
        breakdowns.append(
            StageBreakdown(
                compute_s=per_step * one.compute_s,
                recompute_s=per_step * one.recompute_s,
                tensor_s=per_step * one.tensor_s,
                gather_s=max(0.0, per_step * one.gather_s),
                host_s=per_step * one.host_s,
                bubble_s=max(0.0, pipeline_s - per_step * (one.forward_s + one.backward_s)),
                sync_s=synchronising_s,
                optimizer_s=updating_s,
            )
        )
    speeds = {id(speed): speed for place in hardware for speed in place.speeds}
    uncertainty = max(speed.efficiency.uncertainty for speed in speeds.values())
    return StepPrediction(step_s=step_s, stages=tuple(breakdowns), in_flight=in_flight, uncertainty=uncertainty)


def slowest_pass(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, timer: StageTimer
) -> tuple[PassTime, float]:
    """The pass time of the replica that takes longest per step, and how many of it per micro-batch of the step.

    A replica whose samples are no multiple of its micro-batch has a last one that is smaller.
    """
    blocks = workload.part(stage.first_block, stage.end_block)
    found: dict[tuple[int, int, int], tuple[PassTime, float]] = {}
    for replica, speed in zip(stage.replicas, place.speeds, strict=True):
        key = (id(speed), replica.micro_batch, replica.num_samples)
        if key not in found:
            one = timer.pass_time(blocks, stage, replica.micro_batch, speed, place.links, strategy.execution)
            full, rest = divmod(replica.num_samples, replica.micro_batch)
            passes = float(full)
            if rest:
                last = timer.pass_time(blocks, stage, rest, speed, place.links, strategy.execution)
                passes += (last.forward_s + last.backward_s) / (one.forward_s + one.backward_s)
            found[key] = (one, passes / strategy.num_micro_batches)
    return max(found.values(), key=lambda item: item[1] * (item[0].forward_s + item[0].backward_s))


def pass_times(
    one: PassTime,
    share: float,
    workload: WorkloadProfile,
    stage: StageStrategy,
    place: StageHardware,
    strategy: Strategy,
) -> StageTimes:
    """Seconds of one micro-batch on a stage whose slowest replica takes `one`, and to hand on what it puts out."""
    last_block, _ = workload.part(stage.end_block - 1, stage.end_block)[0]
    micro_batch = max(replica.micro_batch for replica in stage.replicas)
    sent = last_block.boundary_elements * micro_batch * element_bytes(strategy.execution.dtype) * share
    sent /= stage.context_parallel * (stage.tensor_parallel if stage.sequence_parallel else 1)
    hand_on_s = collective_s("send_recv", sent, place.links.to_next)
    weight_s = one.weight_s if strategy.schedule == "zero-bubble" else 0.0
    return StageTimes(
        share * one.forward_s, share * (one.backward_s - weight_s), share * weight_s, hand_on_s, hand_on_s
    )


def _chunks(one: StageTimes, chunks: int) -> list[StageTimes]:
    return [StageTimes(one.forward_s / chunks, one.backward_s / chunks, one.weight_s / chunks, *one[3:])] * chunks


def stage_times(
    workload: WorkloadProfile, strategy: Strategy, hardware: Sequence[StageHardware], timer: StageTimer
) -> list[list[StageTimes]]:
    """Seconds of one micro-batch on each chunk of each stage, as `schedule.simulate` takes them."""
    found = []
    for stage, place in zip(strategy.stages, hardware, strict=True):
        one, share = slowest_pass(workload, stage, place, strategy, timer)
        found.append(_chunks(pass_times(one, share, workload, stage, place, strategy), strategy.chunks))
    return found


def sync_s(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, one: PassTime
) -> float:
    """Gradient synchronisation of a stage that its passes do not hide."""
    execution, data = strategy.execution, place.links.data
    held = stage_parameters(workload, stage)
    tied_s = _tied_s(workload, stage, place, strategy)
    if data.size == 1:
        return tied_s
    # measured with plain replicas of the whole model; ZeRO moves no less
    measured_s = (workload.gang_overhead_s or 0.0) * min(1.0, held / max(1, workload.num_parameters))
    if syncs_inside(stage, execution):
        return measured_s + tied_s
    whole_s = collective_s("reduce_scatter" if stage.zero else "all_reduce", held * execution.gradient_bytes, data)
    gathered_s = collective_s("all_gather", held * execution.parameter_bytes, data) if stage.zero else 0.0
    if workload.gang_overhead_s is not None:
        return (max(measured_s, whole_s) if stage.zero else measured_s) + gathered_s + tied_s
    whole_s += gathered_s
    if not execution.overlap_gradients:
        return whole_s + tied_s
    blocks = stage.end_block - stage.first_block
    return max(whole_s - one.backward_s, whole_s / blocks) + tied_s


def _tied_s(workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy) -> float:
    if place.links.tied.size == 1:
        return 0.0
    table = workload.tied_parameters / stage.tensor_parallel
    return collective_s("all_reduce", table * strategy.execution.gradient_bytes, place.links.tied)


def optimizer_s(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, timer: StageTimer
) -> float:
    """The update of a stage's parameters on its slowest device."""
    shards = place.links.data.size if stage.zero >= 1 else 1
    if stage.offload:
        updated = stage_parameters(workload, stage) / shards
        return updated * (strategy.execution.gradient_bytes + 2) / HOST_LINK_BYTES_PER_S
    blocks = workload.part(stage.first_block, stage.end_block)
    speeds = {id(speed): speed for speed in place.speeds}
    per_parameter = timer.shared.optimizer_bytes
    return max(
        sum(count * update_s(block, stage.tensor_parallel, speed, per_parameter) for block, count in blocks) / shards
        for speed in speeds.values()
    )
