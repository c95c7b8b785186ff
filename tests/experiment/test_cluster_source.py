"""Which cluster a command means. Joining and emulating one is shown by tests/e2e/test_cluster.py."""

import socket
from pathlib import Path

import pytest

from heliostat.cluster import spec_file
from heliostat.cluster.machine import Device
from heliostat.cluster.measured import DeviceRates, Measured
from heliostat.cluster.node_report import probe
from heliostat.cluster.ports import free_ports
from heliostat.cluster.spec import ClusterSpec, Node, Origin
from heliostat.errors import ServiceError
from heliostat.experiment.cluster_source import CALIBRATED, THIS_MACHINE, joined, look
from heliostat.experiment.services import Session

HALF = 0.5


def calibrate(store: Path, origin: Origin) -> Measured:
    """Write down a calibration of this host, or of an emulation with a node of this name."""
    hostname = probe().hostname
    cpus = [Device(type="cpu", index=index, memory_bytes=1 << 30, speed=1.0 - HALF * index) for index in range(2)]
    measured = Measured(
        date="2026-01-02T03:04:05+00:00",
        emulated=origin == "emulated",
        rates={"cpu": DeviceRates(matmul=(), memory_bytes_per_s=1e9)},
    )
    node = Node.of("old", cpus, hostname=hostname)
    spec_file.save(ClusterSpec(nodes=(node,), origin=origin, measured=measured), store / CALIBRATED)
    return measured


def test_without_anything_it_is_this_machine(tmp_path: Path) -> None:
    with joined(None, tmp_path) as source:
        assert source is None
    found = look(None, address=None, store=tmp_path)
    assert (found.source, found.survey.cluster.origin) == (THIS_MACHINE, "live")
    assert found.survey.cluster.measured is None
    assert found.survey.cluster.nodes[0].hostname == probe().hostname


def test_what_was_calibrated_for_the_store_is_known_again(tmp_path: Path) -> None:
    measured = calibrate(tmp_path, "live")
    cluster = look(None, address=None, store=tmp_path).survey.cluster
    assert cluster.measured == measured
    assert [device.speed for device in cluster.nodes[0].devices][:2] == [1.0, HALF][: cluster.num_devices]


def test_what_was_measured_on_an_emulation_is_not_taken_for_this_machine(tmp_path: Path) -> None:
    calibrate(tmp_path, "emulated")
    assert look(None, address=None, store=tmp_path).survey.cluster.measured is None


def test_an_address_where_nobody_listens_is_told_at_once(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with pytest.raises(ServiceError, match="cannot join") as caught, joined(f"127.0.0.1:{port}", tmp_path):
        pass
    assert caught.value.where == f"Ray at 127.0.0.1:{port}"
    assert "ConnectionRefusedError" in str(caught.value)


def test_somebody_elses_cluster_of_the_store_is_meant_before_this_machine(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    Session(address=f"127.0.0.1:{port}").save(tmp_path)
    with pytest.raises(ServiceError) as caught, joined(None, tmp_path):
        pass
    assert caught.value.where == f"Ray at 127.0.0.1:{port}, up for {tmp_path}"


def test_a_name_that_is_no_host_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught, joined("no-such-host.invalid:6379", tmp_path):
        pass
    assert socket.gaierror.__name__ in str(caught.value)
