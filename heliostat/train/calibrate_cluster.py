"""Measure a whole cluster on Ray: what its devices do, all of them at once, and how long collectives take.

Every device gets a worker of its own. The workers of one group after another join a process group, measure, and leave
it; the others rest. A worker that fails ends the calibration.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat.cluster.groups import CPU, groups_to_measure
from heliostat.cluster.measured import Curve, DeviceRates, GroupShape, Measured
from heliostat.cluster.ports import free_ports
from heliostat.cluster.spec import ClusterSpec, DeviceId
from heliostat.errors import RunFailure
from heliostat.placement.gang import reserve
from heliostat.placement.placement import Placement, RankPlacement
from heliostat.train.calibrate import speeds
from heliostat.train.collectives import measure_curves, operations
from heliostat.train.device_rates import measure_rates, median_rates, slowed
from heliostat.train.effort import FULL, Effort
from heliostat.train.slowdown import factor_here

Progress = Callable[[int, int, str], None]
COLLECTIVE_TIMEOUT = timedelta(seconds=60)
"""For the ranks to meet, and for one collective of the largest message."""
ANSWER_TIMEOUT_S = 600.0
"""The last resort against a worker that hangs; the slowest measurement, on busy cores, takes a tenth of it."""
GRACE_S = 5.0
"""After a worker failed, for the others to say what they saw of it."""
_DRIVER = Path("/sys/module/nvidia/version")


def calibrate_cluster(
    cluster: ClusterSpec, *, cpus_per_device: int, progress: Progress, effort: Effort = FULL
) -> ClusterSpec:
    """`cluster` with `measured`, and with the speeds of devices that differ from others of their type.

    Args:
        cluster: live or emulated; all its devices must be free.
        cpus_per_device: cores of every device's worker, and its torch threads.
        progress: told before each measurement how many are done, of how many, and what comes now.
        effort: how thoroughly is measured.

    Raises:
        PlacementError: a device is not free.
        RunFailure: a worker died, did not answer, or could not measure.

    """
    groups = groups_to_measure(cluster)
    total = 1 + len(groups)
    curves: list[Curve] = []
    with _workers(cluster, cpus_per_device) as workers:
        progress(0, total, f"rates of {len(workers)} devices")
        versions = _ask("starting the workers", {one: worker.versions.remote() for one, worker in workers.items()})
        rates = _ask("measuring rates", {one: worker.rates.remote(effort) for one, worker in workers.items()})
        for number, (shape, members) in enumerate(groups.items(), start=1):
            progress(number, total, f"collectives among {shape}")
            curves += _curves(shape, {one: workers[one] for one in members}, effort)
        progress(total, total, "done")
    known = with_speeds(cluster, [1 / _fp32(one) for one in rates])
    measured = Measured(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_merged(versions),
        emulated=cluster.origin == "emulated",
        rates=_by_kind(known, rates),
        curves=tuple(curves),
    )
    return known.model_copy(update={"measured": measured})


def with_speeds(cluster: ClusterSpec, times_s: Sequence[float]) -> ClusterSpec:
    """The cluster with the speed of every device, from its time for the same work, in the order of `device_ids`."""
    members: dict[str, list[tuple[DeviceId, float]]] = {}
    for one, time_s in zip(cluster.device_ids, times_s, strict=True):
        members.setdefault(cluster.device(one).type, []).append((one, time_s))
    speed_of: dict[tuple[str, int], float] = {}
    for of_type in members.values():
        speed_of |= zip((one for one, _ in of_type), speeds([time_s for _, time_s in of_type]), strict=True)
    return cluster.model_copy(update={"nodes": tuple(node.with_speeds(speed_of) for node in cluster.nodes)})


class _Worker:
    """One device's side of a calibration."""

    def __init__(self, *, on_gpu: bool, num_threads: int) -> None:
        self._device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        torch.set_num_threads(num_threads)

    def versions(self) -> dict[str, str]:
        """What may change the figures."""
        found = {"torch": str(torch.__version__), "ray": str(ray.__version__), "collectives": "gloo"}
        if self._device.type == "cuda":
            version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
            found["collectives"] = f"nccl {'.'.join(map(str, version))}"
            found["cuda"] = str(torch.version.cuda or torch.version.hip)
        if _DRIVER.exists():
            found["driver"] = _DRIVER.read_text().strip()
        return found

    def rates(self, effort: Effort) -> DeviceRates:
        """Measure the device by itself; one that an emulation slows down is as much slower here."""
        return slowed(measure_rates(self._device, effort), factor_here())

    def address(self) -> str:
        """Where a group can meet: this node, and a port that is free now."""
        host = ray.util.get_node_ip_address()
        return f"tcp://{host}:{free_ports(1, host)[0]}"

    def join(self, address: str, rank: int, num_ranks: int) -> None:
        """Become a rank of a process group."""
        on_gpu = self._device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=address,
            rank=rank,
            world_size=num_ranks,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=self._device if on_gpu else None,
        )

    def curves(self, shape: GroupShape, effort: Effort) -> tuple[Curve, ...]:
        """Measure together with the other ranks."""
        return measure_curves(operations(shape.num_ranks), shape, device=self._device, effort=effort)

    def leave(self) -> None:
        """Be no rank any more."""
        dist.destroy_process_group()


@contextmanager
def _workers(cluster: ClusterSpec, cpus_per_device: int) -> Iterator[dict[DeviceId, Any]]:
    """A worker on every device; leaving the block ends them."""
    found: dict[DeviceId, Any] = {}
    with ExitStack() as gangs:
        for on_cpu in (False, True):  # a gang asks for the same on all its nodes: cores, or cores and a GPU
            devices = [one for one in cluster.device_ids if (cluster.device(one).type == CPU) == on_cpu]
            if not devices:
                continue
            gang = gangs.enter_context(reserve(_placement(cluster, devices), cpus_per_device))
            for bundle, one in enumerate(devices):
                actor = ray.remote(_Worker).options(
                    num_cpus=cpus_per_device,
                    runtime_env={"env_vars": {} if on_cpu else {"CUDA_VISIBLE_DEVICES": _visible(cluster, one)}},
                    scheduling_strategy=PlacementGroupSchedulingStrategy(gang, placement_group_bundle_index=bundle),
                )
                on_gpu = not on_cpu and cluster.origin != "emulated"
                found[one] = actor.remote(on_gpu=on_gpu, num_threads=cpus_per_device)
        yield {one: found[one] for one in cluster.device_ids}


def _curves(shape: GroupShape, group: Mapping[DeviceId, Any], effort: Effort) -> tuple[Curve, ...]:
    """What the workers `group`, the ranks of one process group, measure together."""
    doing = f"measuring collectives among {shape}"
    first = next(iter(group))
    [address] = _ask(doing, {first: group[first].address.remote()})
    _ask(
        doing, {one: worker.join.remote(address, rank, len(group)) for rank, (one, worker) in enumerate(group.items())}
    )
    curves: tuple[Curve, ...] = _ask(
        doing, {one: worker.curves.remote(shape, effort) for one, worker in group.items()}
    )[0]
    _ask(doing, {one: worker.leave.remote() for one, worker in group.items()})
    return curves


def _ask(doing: str, calls: Mapping[DeviceId, "ray.ObjectRef[Any]"]) -> list[Any]:
    """The answers of workers, in the order of `calls`.

    Raises:
        RunFailure: a worker failed; it tells of all that did, for the others often only lost their connection to it.

    """
    waiting = {ref: one for one, ref in calls.items()}
    answers: dict[DeviceId, Any] = {}
    failures: dict[DeviceId, str] = {}
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for ref in ray.wait(list(waiting), timeout=left_s)[0]:
            one = waiting.pop(ref)
            try:
                answers[one] = ray.get(ref)
            except ray.exceptions.RayError as error:
                failures[one] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1].strip()}"
                deadline = min(deadline, time.monotonic() + GRACE_S)
    if not failures:
        failures = dict.fromkeys(waiting.values(), f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
    if failures:
        raise RunFailure(
            f"calibration stopped while {doing}",
            where=", ".join(f"{one.node_id[:8]}/{one.device_index}" for one in failures),
            got="; ".join(dict.fromkeys(failures.values())),
            causes=("a node or its network failed", "a device ran out of memory"),
            next_step="heliostat cluster doctor",
        )
    return [answers[one] for one in calls]


def _placement(cluster: ClusterSpec, devices: Sequence[DeviceId]) -> Placement:
    ranks = (
        RankPlacement(
            rank=rank,
            role=rank,
            node_id=one.node_id,
            device_index=one.device_index,
            device_kind=cluster.device(one).type,
        )
        for rank, one in enumerate(devices)
    )
    return Placement(ranks=tuple(ranks), reason="every device, to measure it")


def _visible(cluster: ClusterSpec, one: DeviceId) -> str:
    """How a worker is told its GPU: by uuid, as CUDA counts in an order of its own; in an emulation by index."""
    device = cluster.device(one)
    return str(device.index) if cluster.origin == "emulated" else device.uuid or str(device.index)


def _fp32(rates: DeviceRates) -> float:
    flops = rates.flops("fp32")
    assert flops is not None, "every device multiplies fp32"
    return flops


def _by_kind(cluster: ClusterSpec, rates: Sequence[DeviceRates]) -> dict[str, DeviceRates]:
    kinds: dict[str, list[DeviceRates]] = {}
    for one, of_device in zip(cluster.device_ids, rates, strict=True):
        kinds.setdefault(cluster.device(one).kind, []).append(of_device)
    return {kind: median_rates(members) for kind, members in kinds.items()}


def _merged(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """One entry for each name; workers that differ are all named."""
    names = dict.fromkeys(name for found in versions for name in found)
    return {name: ", ".join(sorted({found[name] for found in versions if name in found})) for name in names}
