"""The cluster as a value."""

from heliostat.cluster.spec import ClusterSpec, Device, Link, Node


def spec(name: str, *devices: Device) -> ClusterSpec:
    return ClusterSpec(nodes=(Node(node_id=name, devices=devices),), origin="live")


CPU = Device(type="cpu", index=0, memory_bytes=2 << 30)
SLOW = Device(type="cpu", index=1, memory_bytes=2 << 30, speed=0.5)


def test_kinds_tell_speed_classes_apart() -> None:
    assert spec("a", CPU, SLOW).count_by_kind() == {"cpu": 1, "cpu@0.50": 1}


def test_shape_is_blind_to_names_and_measurements_but_not_to_devices() -> None:
    assert spec("a", CPU).shape() == spec("b", CPU).shape()
    assert spec("a", CPU, SLOW).shape() == spec("a", CPU, SLOW.model_copy(update={"speed": 1.0})).shape()
    assert spec("a", CPU).shape() != spec("a", CPU, SLOW).shape()


def test_round_trip() -> None:
    before = spec("a", CPU, SLOW).model_copy(update={"link": Link(latency_s=1e-3, bytes_per_s=1e9)})
    assert ClusterSpec.model_validate_json(before.model_dump_json()) == before


def test_link_time() -> None:
    assert Link(latency_s=0.5, bytes_per_s=100).time_s(50) == 1.0
