"""Calibration on a real Ray cluster; what it finds depends on the machine, so only its structure is asserted."""

import signal
from datetime import UTC, datetime
from typing import get_args

import psutil
import pytest
import ray

from heliostat.cluster.machine import Device
from heliostat.cluster.measured import Operation
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlacementError, RunFailure
from heliostat.train.calibrate_cluster import calibrate_cluster, with_speeds
from heliostat.train.effort import QUICK


def cpus(node_id: str, count: int = 2) -> ClusterSpec:
    devices = [Device(type="cpu", index=index, memory_bytes=1 << 30) for index in range(count)]
    return ClusterSpec(nodes=(Node.of(node_id, devices),), origin="live")


def this_cluster() -> ClusterSpec:
    [node] = ray.nodes()
    return cpus(node["NodeID"])


def ignore(done: int, total: int, what: str) -> None:
    """Nobody watches."""


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_devices_and_groups_are_measured() -> None:
    told: list[tuple[int, int, str]] = []
    found = calibrate_cluster(this_cluster(), cpus_per_device=1, progress=lambda *what: told.append(what), effort=QUICK)
    assert told == [
        (0, 2, "rates of 2 devices"),
        (1, 2, "collectives among 2 x cpu on 1 node over host"),
        (2, 2, "done"),
    ]
    measured = found.measured
    assert measured is not None
    assert not measured.emulated
    assert measured.versions["torch"]
    assert measured.versions["collectives"] == "gloo"
    assert datetime.fromisoformat(measured.date).tzinfo == UTC
    assert set(measured.rates) == set(found.count_by_kind())
    assert tuple(curve.operation for curve in measured.curves) == get_args(Operation)
    assert measured.link(["cpu"], num_nodes=1, link="host") is not None
    assert ClusterSpec.model_validate_json(found.model_dump_json()) == found


def command_line(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_dies_ends_the_calibration_with_its_name() -> None:
    cluster = this_cluster()

    def kill_one(done: int, total: int, what: str) -> None:
        if done == 1:
            workers = [one for one in psutil.Process().children(recursive=True) if "_Worker" in command_line(one)]
            workers[0].send_signal(signal.SIGKILL)

    with pytest.raises(RunFailure, match="calibration stopped while measuring collectives among 2 x cpu") as caught:
        calibrate_cluster(cluster, cpus_per_device=1, progress=kill_one, effort=QUICK)
    assert caught.value.got is not None
    assert "ActorDiedError" in caught.value.got
    assert caught.value.where is not None
    assert cluster.nodes[0].node_id[:8] in caught.value.where


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.placement.gang.GRANT_TIMEOUT_S", 1.0)
    with pytest.raises(PlacementError, match="did not grant"):
        calibrate_cluster(cpus("0" * 56), cpus_per_device=1, progress=ignore, effort=QUICK)


def test_devices_are_compared_with_others_of_their_type() -> None:
    types = ["T4", "T4", "A30", "T4"]
    devices = [Device(type=name, index=index, memory_bytes=1) for index, name in enumerate(types)]
    cluster = ClusterSpec(nodes=(Node.of("a", devices),), origin="live")
    assert with_speeds(cluster, [1.0, 1.2, 0.1, 2.0]).nodes[0].speeds == (1.0, 1.0, 1.0, 0.5)
