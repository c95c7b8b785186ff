"""Measure the devices of a cluster with the task they are to run, all of them at once.

At once, because they will train at once: devices of one machine share its memory bandwidth and caches, and one that is
measured alone promises too much.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from socket import socket
from statistics import median
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat.cluster.measured import Curve, DeviceRates, GroupShape, Measured, Operation
from heliostat.cluster.spec import ClusterSpec
from heliostat.data.versions import DatasetVersion
from heliostat.placement.gang import reserve, resources
from heliostat.placement.placement import Placement, RankPlacement
from heliostat.train.apply.engine import CPU, EngineSettings
from heliostat.train.collectives import measure_curves, operations
from heliostat.train.device_rates import measure_rates, median_rates, slowed
from heliostat.train.effort import QUICK
from heliostat.train.evaluate import tensors_of
from heliostat.train.execution import Precision
from heliostat.train.slowdown import factor_here
from heliostat.train.step_timing import BlockLine, StepTiming
from heliostat.train.task import Task, Tensors, make_task
from heliostat.train.timing import measure_gang, measure_step
from heliostat.values import Frozen

SAME_SPEED = 1.35
"""Devices whose times differ by less than this factor are of one kind. Two equal cores of a busy machine were measured
a third apart; device generations differ by more."""
SPEED_STEP = 0.05
NUM_SIZES = 4
MEAN_MESSAGE_BYTES = 1 << 20
"""The message by which links are compared."""
LINK = QUICK.model_copy(
    update={"message_bytes": tuple(1 << shift for shift in (12, 16, 18, 20, 22)), "min_rounds": 5, "collectives_s": 2.0}
)
"""How thoroughly the all-reduce of all devices is measured."""
RENDEZVOUS_TIMEOUT = timedelta(seconds=60)


class Calibration(Frozen):
    """What was measured."""

    cluster: ClusterSpec
    """With every device's speed and rates, and the collectives of all of them."""
    timings: dict[str, StepTiming]
    """Of each device kind, by itself."""
    gang_overhead_s: float | None
    """What a step of all devices together takes longer than the slowest one's; None for a single device."""


def calibrate(
    reference: str,
    data: DatasetVersion,
    params: Mapping[str, Any],
    *,
    cluster: ClusterSpec,
    global_batch: int,
    cpus_per_device: int,
    precision: Precision = "fp32",
) -> Calibration:
    """Time the task on every device of `cluster`, by itself and all together, and the link between them.

    Raises:
        PlacementError: a device is not free.
        UserError: the task or its parameters.
        TrainingFailure: the task's loss raises or breaks its contract.

    """
    placement = _everywhere(cluster)
    sizes = micro_batch_sizes(global_batch, len(placement.ranks))
    shape = _shape_of(cluster)
    with reserve(placement, cpus_per_device) as gang:
        probes = [
            ray.remote(_Probe)
            .options(
                num_cpus=cpus_per_device,
                num_gpus=resources((rank.device_kind,), cpus_per_device).get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(gang, placement_group_bundle_index=rank.rank),
            )
            .remote(rank.rank, shape, cpus_per_device)
            for rank in placement.ranks
        ]
        address = ray.get(probes[0].address.remote())
        try:
            measured = ray.get(
                [probe.measure.remote(address, reference, data, dict(params), sizes, precision) for probe in probes]
            )
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
    timings, rates, gangs = zip(*measured, strict=True)
    classified, by_kind = classify(cluster, timings, num_samples=sizes[-1])
    curves, steps_s = zip(*gangs, strict=True) if len(timings) > 1 else ((), ())
    classified = classified.model_copy(update={"measured": _measured(curves, classified, rates)})
    if len(timings) == 1:
        return Calibration(cluster=classified, timings=by_kind, gang_overhead_s=None)
    alone_s = max(timing.compute_s(num_micro_batches=1, num_samples=sizes[-1]) for timing in timings)
    return Calibration(
        cluster=classified,
        timings=by_kind,
        gang_overhead_s=max(0.0, median(steps_s) - alone_s),
    )


def micro_batch_sizes(global_batch: int, num_devices: int) -> list[int]:
    """Sizes to measure: an even share of the global batch, and halves of it."""
    share = max(1, global_batch // num_devices)
    return sorted({max(1, share >> shift) for shift in range(NUM_SIZES)} | {1, 2})[-NUM_SIZES:]


def speeds(times_s: Sequence[float]) -> list[float]:
    """Relative speed of devices of one type from their times for the same work: 1.0 for all about as fast as the best.

    Slower ones are rounded to a twentieth, so that equal devices stay equal in spite of noise.
    """
    fastest = min(times_s)
    return [
        1.0
        if time <= SAME_SPEED * fastest
        else max(SPEED_STEP, round(round(fastest / time / SPEED_STEP) * SPEED_STEP, 2))
        for time in times_s
    ]


def classify(
    cluster: ClusterSpec, timings: Sequence[StepTiming], num_samples: int
) -> tuple[ClusterSpec, dict[str, StepTiming]]:
    """The cluster with the speed of every device, and the median timing of each kind.

    Args:
        cluster: the devices.
        timings: of each device, in the order of the cluster.
        num_samples: the work they are compared by, one micro-batch of this many samples.

    """
    devices = [((node.node_id, device.index), device) for node in cluster.nodes for device in node.devices]
    times_s = [timing.compute_s(num_micro_batches=1, num_samples=num_samples) for timing in timings]
    speed_of: dict[tuple[str, int], float] = {}
    for kind in {device.type for _, device in devices}:
        members = [(key, time) for (key, device), time in zip(devices, times_s, strict=True) if device.type == kind]
        speed_of |= zip((key for key, _ in members), speeds([time for _, time in members]), strict=True)
    measured = cluster.model_copy(update={"nodes": tuple(node.with_speeds(speed_of) for node in cluster.nodes)})
    by_kind: dict[str, list[StepTiming]] = {}
    for device, timing in zip((device for node in measured.nodes for device in node.devices), timings, strict=True):
        by_kind.setdefault(device.kind, []).append(timing)
    return measured, {kind: _median(members) for kind, members in by_kind.items()}


class _Probe:
    """One device's side of a calibration."""

    def __init__(self, rank: int, shape: GroupShape, num_threads: int) -> None:
        self._rank = rank
        self._num_ranks = shape.num_ranks
        self._shape = shape
        torch.set_num_threads(num_threads)

    def address(self) -> str:
        """Where the ranks can meet: this node, and a port that is free now."""
        with closing(socket()) as listener:
            listener.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{listener.getsockname()[1]}"

    def measure(
        self,
        address: str,
        reference: str,
        data: DatasetVersion,
        params: dict[str, Any],
        sizes: list[int],
        precision: Precision,
    ) -> tuple[StepTiming, DeviceRates, tuple[tuple[Curve, ...], float] | None]:
        """Time the gang, then the steps by themselves: the ranks leave the first measurement together."""
        task = make_task(reference, data, params)
        tensors = tensors_of(task.load("validation"))
        settings = EngineSettings(precision=precision)
        gang = self._gang(address, task, tensors, sizes[-1], settings) if self._num_ranks > 1 else None
        timing = measure_step(task, tensors, micro_batches=sizes, settings=settings)
        return timing, slowed(measure_rates(CPU, QUICK), factor_here()), gang

    def _gang(
        self, address: str, task: Task, tensors: Tensors, micro_batch: int, settings: EngineSettings
    ) -> tuple[tuple[Curve, ...], float]:
        dist.init_process_group(
            "gloo", init_method=address, rank=self._rank, world_size=self._num_ranks, timeout=RENDEZVOUS_TIMEOUT
        )
        try:
            curves = measure_curves(operations(self._num_ranks), self._shape, device=CPU, effort=LINK)
            if self._num_ranks > 2:
                curves += self._between_two()
            return curves, measure_gang(task, tensors, micro_batch=micro_batch, settings=settings)
        finally:
            dist.destroy_process_group()

    def _between_two(self) -> tuple[Curve, ...]:
        """What the first two ranks send each other; nothing on the others."""
        pair = dist.new_group([0, 1])
        if self._rank > 1:
            return ()
        shape = self._shape.model_copy(update={"num_ranks": 2})
        return measure_curves(["send_recv"], shape, device=CPU, effort=LINK, group=pair)


def _everywhere(cluster: ClusterSpec) -> Placement:
    devices = [(node.node_id, device) for node in cluster.nodes for device in node.devices]
    ranks = tuple(
        RankPlacement(rank=rank, role=rank, node_id=node_id, device_index=device.index, device_kind=device.type)
        for rank, (node_id, device) in enumerate(devices)
    )
    return Placement(ranks=ranks, reason="every device, to measure it")


def _shape_of(cluster: ClusterSpec) -> GroupShape:
    types = {device.type for node in cluster.nodes for device in node.devices}
    num_nodes = sum(1 for node in cluster.nodes if node.devices)
    return GroupShape(
        num_ranks=cluster.num_devices,
        num_nodes=num_nodes,
        device_type="+".join(sorted(types)),
        link="host" if num_nodes == 1 else "network",
    )


def _measured(curves: Sequence[Sequence[Curve]], cluster: ClusterSpec, rates: Sequence[DeviceRates]) -> Measured:
    """What was measured by every rank: of a curve the slowest one, of rates the median of a kind."""
    slowest: dict[tuple[Operation, GroupShape], Curve] = {}
    for curve in (curve for own in curves for curve in own):
        before = slowest.setdefault((curve.operation, curve.group), curve)
        if curve.time_s(MEAN_MESSAGE_BYTES) > before.time_s(MEAN_MESSAGE_BYTES):
            slowest[curve.operation, curve.group] = curve
    kinds: dict[str, list[DeviceRates]] = {}
    for device, own in zip((device for node in cluster.nodes for device in node.devices), rates, strict=True):
        kinds.setdefault(device.kind, []).append(own)
    return Measured(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        emulated=cluster.origin == "emulated",
        rates={kind: median_rates(members) for kind, members in kinds.items()},
        curves=tuple(slowest.values()),
    )


def _median(timings: Sequence[StepTiming]) -> StepTiming:
    return StepTiming(
        micro_batch_s=median(timing.micro_batch_s for timing in timings),
        sample_s=median(timing.sample_s for timing in timings),
        optimizer_s=median(timing.optimizer_s for timing in timings),
        blocks=tuple(map(_median_line, zip(*(timing.blocks for timing in timings), strict=True))),
    )


def _median_line(lines: Sequence[BlockLine]) -> BlockLine:
    return BlockLine(**{name: median(getattr(line, name) for line in lines) for name in BlockLine.model_fields})
