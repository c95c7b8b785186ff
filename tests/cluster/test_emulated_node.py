"""What a raylet of an emulation carries, and how slow its devices are."""

from pathlib import Path

import pytest

from heliostat.cluster.catalogue import DeviceType
from heliostat.cluster.emulated_node import VARIABLE, EmulatedNode, slowdowns_of
from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError


def device(kind: str, index: int = 0, **fields: object) -> Device:
    return Device.model_validate({"type": kind, "index": index, "memory_bytes": 1 << 34, **fields})


def cluster(*devices: Device, types: dict[str, DeviceType] | None = None) -> ClusterSpec:
    nodes = tuple(Node.of(f"n{place}", [one]) for place, one in enumerate(devices))
    return ClusterSpec(nodes=nodes, origin="file", types=types or {})


def test_types_are_compared_by_the_best_dtype_that_all_have() -> None:
    a100, h100, v100, p40 = (device(name) for name in ("A100-40GB-SXM", "H100-80GB-SXM", "V100-32GB-SXM", "P40"))
    assert slowdowns_of(cluster(a100, h100))["A100-40GB-SXM"] == pytest.approx(989.4 / 312, rel=1e-3)  # bf16
    assert slowdowns_of(cluster(a100, v100)) == {"A100-40GB-SXM": 1.0, "V100-32GB-SXM": 312 / 125}  # fp16
    assert slowdowns_of(cluster(v100, p40)) == {"V100-32GB-SXM": 1.0, "P40": pytest.approx(15.7 / 12)}  # fp32


def test_a_cpu_runs_at_its_own_pace() -> None:
    assert slowdowns_of(cluster(device("cpu"), device("V100-32GB-SXM"), device("A100-40GB-SXM")))["cpu"] == 1.0
    assert slowdowns_of(cluster(device("cpu"))) == {"cpu": 1.0}


def test_instances_of_a_gpu_and_devices_measured_slow_count_for_what_they_are() -> None:
    part = device("A100-40GB-SXM", gpu=0, mig="2g.10gb")
    slow = device("cpu", speed=0.5)
    assert slowdowns_of(cluster(part, slow)) == {"A100-40GB-SXM/2g.10gb": 3.5, "cpu@0.50": 2.0}


def test_a_given_factor_wins() -> None:
    both = cluster(device("A100-40GB-SXM"), device("V100-32GB-SXM"))
    assert slowdowns_of(both, {"V100-32GB-SXM": 3.0}) == {"A100-40GB-SXM": 1.0, "V100-32GB-SXM": 3.0}
    with pytest.raises(UserError, match="no device of type 'V100-32GB-SMX' \\(did you mean 'V100-32GB-SXM'"):
        slowdowns_of(both, {"V100-32GB-SMX": 3.0})
    for wrong in (0.5, float("nan"), float("inf")):
        with pytest.raises(UserError, match="must be a number from"):
            slowdowns_of(both, {"V100-32GB-SXM": wrong})


def test_types_that_the_catalogue_cannot_compare_need_a_factor() -> None:
    own = DeviceType(name="Int", memory_gib=1, memory_gb_per_s=1, tflops={"int8": 100}, source="a test")
    mixed = cluster(device("Int"), device("A100-40GB-SXM"), types={"Int": own})
    with pytest.raises(UserError, match="cannot compare A100-40GB-SXM, Int"):
        slowdowns_of(mixed)
    given = {"Int": 4.0, "A100-40GB-SXM": 1.0}
    assert slowdowns_of(mixed, given) == given
    assert slowdowns_of(cluster(device("Int"), device("cpu"), types={"Int": own})) == {"Int": 1.0, "cpu": 1.0}


def test_a_process_reads_what_its_node_pretends_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EmulatedNode.here() is None
    devices = [device("T4", index, uuid=f"GPU-{index}") for index in (2, 3)]
    node = Node.of("a", devices, hostname="h", labels={"rack": "r0"})
    own = DeviceType(name="Own", always_measured=True, source="a test")
    whole = ClusterSpec(
        nodes=(node,), origin="file", fabric=Fabric(levels=(FabricLevel(name="rack"),)), types={"Own": own}
    )
    carried = EmulatedNode.of(node, whole, {"T4": 4.8})
    path = tmp_path / "a.json"
    path.write_text(carried.model_dump_json())
    monkeypatch.setenv(VARIABLE, str(path))
    found = EmulatedNode.here()
    assert found == carried
    assert found is not None
    assert (found.node_id, found.machine, found.uuids, found.labels) == ("a", node.machine, node.uuids, node.labels)
    assert (found.fabric, found.types) == (whole.fabric, whole.types)
    path.write_text("{")
    with pytest.raises(UserError, match="description of this emulated node cannot be read"):
        EmulatedNode.here()


def test_the_device_of_a_worker_is_the_first_that_it_sees() -> None:
    node = Node.of("a", [device("A100-40GB-SXM", 4), device("V100-32GB-SXM", 6)])
    carried = EmulatedNode.of(
        node, ClusterSpec(nodes=(node,), origin="file"), {"A100-40GB-SXM": 1.0, "V100-32GB-SXM": 2.5}
    )
    assert [carried.slowdown(visible) for visible in ("6,4", "4", "", "6")] == [2.5, 1.0, 1.0, 2.5]
    with pytest.raises(UserError, match="emulated node a has no device 0"):
        carried.slowdown("0")
