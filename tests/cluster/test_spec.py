"""The cluster as a value."""

import json

import pytest
from pydantic import ValidationError

from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, DeviceId, Node
from heliostat.values import plain


def spec(name: str, *devices: Device) -> ClusterSpec:
    return ClusterSpec(nodes=(Node.of(name, devices),), origin="live")


CPU = Device(type="cpu", index=0, memory_bytes=2 << 30)
SLOW = Device(type="cpu", index=1, memory_bytes=2 << 30, speed=0.5)


def test_kinds_tell_speed_classes_and_mig_profiles_apart() -> None:
    slice_ = Device(type="A30", index=2, memory_bytes=6 << 30, gpu=0, mig="1g.6gb")
    assert spec("a", CPU, SLOW, slice_).count_by_kind() == {"cpu": 1, "cpu@0.50": 1, "A30/1g.6gb": 1}
    assert slice_.physical == 0


def test_shape_is_blind_to_names_and_measurements_but_not_to_devices() -> None:
    assert spec("a", CPU).shape() == spec("b", CPU).shape()
    assert spec("a", CPU, SLOW).shape() == spec("a", CPU, SLOW.model_copy(update={"speed": 1.0})).shape()
    assert spec("a", CPU).shape() != spec("a", CPU, SLOW).shape()


def test_what_is_known_of_one_device_is_kept_by_its_node() -> None:
    gpus = [Device(type="T4", index=index, memory_bytes=1 << 34, uuid=f"GPU-{index}") for index in range(2)]
    cluster = spec("a", *gpus)
    assert cluster.nodes[0].devices == tuple(gpus)
    assert cluster.device(DeviceId("a", 1)).uuid == "GPU-1"
    assert cluster.nodes[0].machine.devices[1].uuid == ""


def test_speeds_move_to_the_same_host_with_a_new_id() -> None:
    measured = ClusterSpec(nodes=(Node.of("old", (CPU, SLOW), hostname="h"),), origin="live")
    fresh = Node.of("new", (CPU, SLOW.model_copy(update={"speed": 1.0})), hostname="h")
    now = ClusterSpec(nodes=(fresh,), origin="live")
    assert now.num_devices == 2
    assert [device.speed for device in now.with_speeds_of(measured).nodes[0].devices] == [1.0, 0.5]


def test_a_part_of_a_node_keeps_indices_and_forgets_what_was_cached() -> None:
    gpus = [Device(type="T4", index=index, memory_bytes=1 << 34, uuid=f"GPU-{index}") for index in range(4)]
    node = Node.of("a", gpus)
    assert len(node.devices) == 4
    assert [(device.index, device.uuid) for device in node.part({3, 1}).devices] == [(1, "GPU-1"), (3, "GPU-3")]
    assert node.part(range(4)) is node


def test_round_trip_as_json_and_as_the_record_of_a_run() -> None:
    before = spec("a", CPU, SLOW)
    assert ClusterSpec.model_validate_json(before.model_dump_json()) == before
    assert ClusterSpec.model_validate(json.loads(json.dumps(plain(before)))) == before
    assert plain({"cluster": before})["cluster"]["machines"].keys() == {"a"}


def test_names_are_unique() -> None:
    twin = Node.of("a", (CPU,))
    with pytest.raises(ValidationError, match="node 'a' is there twice"):
        ClusterSpec(nodes=(twin, twin), origin="live")
    gpu = Device(type="T4", index=0, memory_bytes=1, uuid="GPU-1")
    with pytest.raises(ValidationError, match="device uuid 'GPU-1' is there twice"):
        ClusterSpec(nodes=(Node.of("a", (gpu,)), Node.of("b", (gpu,))), origin="live")
    with pytest.raises(ValidationError, match="device index 0 is there twice"):
        Machine(name="m", devices=(CPU, CPU))
    with pytest.raises(ValidationError, match="1 uuids for 2 devices"):
        Node(node_id="a", machine=Machine(name="m", devices=(CPU, SLOW)), uuids=("x",))
