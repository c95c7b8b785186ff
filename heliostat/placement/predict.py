"""What a strategy takes on given devices and links: seconds per step, where they go, and bytes per device. Pure.

    step = pipeline (simulated) + gradient synchronisation that shows + optimizer

Gradient synchronisation with overlap shows what is longer than the last micro-batch's backward pass, and the last
block's part of it. ZeRO 2 and 3 synchronise inside the passes. The optimizer reads and writes a fixed number of bytes
per parameter that the rank updates.
"""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from pydantic import NonNegativeFloat, NonNegativeInt

from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.blocks import WorkloadProfile
from heliostat.placement.collective_time import collective_s
from heliostat.placement.device_time import element_bytes
from heliostat.placement.efficiency import DeviceSpeed, Efficiencies, fitted, speed_of
from heliostat.placement.hardware import lay_out, links_of
from heliostat.placement.memory import replica_memory
from heliostat.placement.schedule import StageTimes, closed_form_s, simulate
from heliostat.placement.stage_time import PassTime, StageLinks, StageTimer, stage_parameters, syncs_inside
from heliostat.placement.strategy import StageStrategy, Strategy
from heliostat.values import Frozen

BAND_WIDTH = 1.2816
"""Standard deviations either side of the mean that hold 80 % of a normal distribution."""
HOST_LINK_BYTES_PER_S = 2.0e10
"""Device to host and back for an offloaded optimizer: PCIe 4.0 with 16 lanes, as `links.PCIE_3_BYTES_PER_S` counts."""


class StageHardware(NamedTuple):
    """What a stage runs on: the device of each replica, and the links of its groups."""

    speeds: tuple[DeviceSpeed, ...]
    links: StageLinks


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


class StageCost(Frozen):
    """One stage: seconds of one step of its slowest replica, and bytes of its fullest rank."""

    seconds: dict[str, NonNegativeFloat]
    """By what they go to: compute, recompute, tensor, gather, host, bubble, sync, optimizer."""
    memory_bytes: dict[str, NonNegativeFloat]
    """By what they hold: parameters, gradients, optimizer, activations, temporary, reserve."""


class Prediction(Frozen):
    """What a plan is expected to cost."""

    step_time_s: NonNegativeFloat
    low_s: NonNegativeFloat
    """Between this and `high_s` four steps of five are expected."""
    high_s: NonNegativeFloat
    memory_bytes: tuple[NonNegativeInt, ...]
    """Peak of every rank: stage by stage, replica by replica, tensor-parallel neighbours together."""
    stages: tuple[StageCost, ...]


def predict(
    workload: WorkloadProfile, cluster: ClusterSpec, strategy: Strategy, constants: Efficiencies | None = None
) -> Prediction:
    """Predict step time and memory of `strategy` on the devices of `cluster`.

    Raises:
        PlanError: the cluster lacks devices of a kind.
        UserError: nothing tells how devices are joined.
    """
    known = constants or fitted()
    network = Network(cluster)
    layout = lay_out(network, strategy)
    speeds: dict[tuple[str, float], DeviceSpeed] = {}
    hardware = []
    for replicas, links in zip(layout, links_of(network, strategy), strict=True):
        devices = [min((cluster.device(one) for one in replica), key=lambda one: one.speed) for replica in replicas]
        for device in devices:
            key = (device.type, device.speed)
            if key not in speeds:
                of_type = speed_of(device.type, catalogue=cluster.catalogue, efficiencies=known)
                speeds[key] = of_type.model_copy(update={"relative": device.speed})
        hardware.append(StageHardware(tuple(speeds[device.type, device.speed] for device in devices), links))
    step = predict_step(workload, strategy, hardware, StageTimer(known.shared))
    memory = replica_memory(workload, strategy, step.in_flight)
    low_s, high_s = step.band_s
    return Prediction(
        step_time_s=step.step_s,
        low_s=low_s,
        high_s=high_s,
        memory_bytes=tuple(
            int(use.total)
            for stage, uses in zip(strategy.stages, memory, strict=True)
            for use in uses
            for _ in range(stage.ranks_per_replica)
        ),
        stages=tuple(
            StageCost(
                seconds={name.removesuffix("_s"): max(0.0, value) for name, value in one._asdict().items()},
                memory_bytes=max(uses, key=lambda use: use.total)._asdict(),
            )
            for one, uses in zip(step.stages, memory, strict=True)
        ),
    )


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
        _slowest(workload, stage, place, strategy, timer)
        for stage, place in zip(strategy.stages, hardware, strict=True)
    ]
    times = [
        _as_times(one, share, workload, stage, place, strategy)
        for (one, share), stage, place in zip(slowest, strategy.stages, hardware, strict=True)
    ]
    in_flight: tuple[int, ...]
    if len(times) == 1:
        pipeline_s, in_flight = many * (times[0].forward_s + times[0].backward_s), (1,)
    elif exact:
        chunked = [[_chunk(one, strategy.chunks)] * strategy.chunks for one in times]
        line = simulate(strategy.schedule, chunked, many)
        pipeline_s, in_flight = line.total_s, line.in_flight
    else:
        pipeline_s, in_flight = closed_form_s(times, many), tuple([0] * len(times))
    breakdowns, step_s = [], 0.0
    for (one, share), stage, place in zip(slowest, strategy.stages, hardware, strict=True):
        sync_s = _sync_s(workload, stage, place, strategy, one)
        optimizer_s = _optimizer_s(workload, stage, place, strategy, timer)
        per_step = share * many
        step_s = max(step_s, pipeline_s + sync_s + optimizer_s)
        breakdowns.append(
            StageBreakdown(
                compute_s=per_step * one.compute_s,
                recompute_s=per_step * one.recompute_s,
                tensor_s=per_step * one.tensor_s,
                gather_s=max(0.0, per_step * one.gather_s),
                host_s=per_step * one.host_s,
                bubble_s=max(0.0, pipeline_s - per_step * (one.forward_s + one.backward_s)),
                sync_s=sync_s,
                optimizer_s=optimizer_s,
            )
        )
    uncertainty = max(speed.efficiency.uncertainty for place in hardware for speed in place.speeds[:1])
    return StepPrediction(step_s=step_s, stages=tuple(breakdowns), in_flight=in_flight, uncertainty=uncertainty)


def _slowest(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, timer: StageTimer
) -> tuple[PassTime, float]:
    """The pass time of the replica that takes longest per step, and its micro-batches per one of the step's."""
    blocks = workload.part(stage.first_block, stage.end_block)
    found: dict[tuple[int, int, int], tuple[PassTime, float]] = {}
    for replica, speed in zip(stage.replicas, place.speeds, strict=True):
        key = (id(speed), replica.micro_batch, replica.num_micro_batches)
        if key not in found:
            one = timer.pass_time(blocks, stage, replica.micro_batch, speed, place.links, strategy.execution)
            found[key] = (one, replica.num_micro_batches / strategy.num_micro_batches)
    return max(found.values(), key=lambda item: item[1] * (item[0].forward_s + item[0].backward_s))


def _as_times(
    one: PassTime,
    share: float,
    workload: WorkloadProfile,
    stage: StageStrategy,
    place: StageHardware,
    strategy: Strategy,
) -> StageTimes:
    last_block, _ = workload.part(stage.end_block - 1, stage.end_block)[0]
    micro_batch = max(replica.micro_batch for replica in stage.replicas)
    sent = last_block.boundary_elements * micro_batch * element_bytes(strategy.execution.dtype) * share
    sent /= stage.context_parallel * (stage.tensor_parallel if stage.sequence_parallel else 1)
    hand_on_s = collective_s("send_recv", sent, place.links.to_next)
    weight_s = one.weight_s if strategy.schedule == "zero-bubble" else 0.0
    return StageTimes(
        share * one.forward_s, share * (one.backward_s - weight_s), share * weight_s, hand_on_s, hand_on_s
    )


def _chunk(one: StageTimes, chunks: int) -> StageTimes:
    return StageTimes(one.forward_s / chunks, one.backward_s / chunks, one.weight_s / chunks, *one[3:])


def _sync_s(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, one: PassTime
) -> float:
    execution, data = strategy.execution, place.links.data
    held = stage_parameters(workload, stage)
    tied_s = _tied_s(workload, stage, place, strategy)
    if data.size == 1 or syncs_inside(stage, execution):
        return tied_s
    if stage.zero == 0:
        whole_s = collective_s("all_reduce", held * execution.gradient_bytes, data)
    else:
        whole_s = collective_s("reduce_scatter", held * execution.gradient_bytes, data)
        whole_s += collective_s("all_gather", held * 2.0, data)
    if not execution.overlap_gradients:
        return whole_s + tied_s
    blocks = stage.end_block - stage.first_block
    return max(whole_s - one.backward_s, whole_s / blocks) + tied_s


def _tied_s(workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy) -> float:
    if place.links.tied.size == 1:
        return 0.0
    table = workload.blocks[0].split_parameters / stage.tensor_parallel
    return collective_s("all_reduce", table * strategy.execution.gradient_bytes, place.links.tied)


def _optimizer_s(
    workload: WorkloadProfile, stage: StageStrategy, place: StageHardware, strategy: Strategy, timer: StageTimer
) -> float:
    shards = place.links.data.size if stage.zero >= 1 else 1
    updated = stage_parameters(workload, stage) / shards
    slowest = min(speed.memory_rate for speed in place.speeds)
    if stage.offload:
        return updated * (strategy.execution.gradient_bytes + 2) / HOST_LINK_BYTES_PER_S
    return updated * timer.shared.optimizer_bytes / slowest
