from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.groups import group_shape, groups_to_measure
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import GroupShape
from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec, DeviceId, Node
from heliostat.cluster.topology import Connection, LinkClass, NodeTopology, TopologyDevice


def devices(*types: str) -> tuple[Device, ...]:
    return tuple(Device(type=name, index=index, memory_bytes=1) for index, name in enumerate(types))


def cpus(node_id: str, count: int) -> Node:
    return Node.of(node_id, devices(*["cpu"] * count))


def wired(node_id: str, *links: tuple[int, int, str], labels: dict[str, str] | None = None) -> Node:
    """Four V100; what `links` leaves out goes over the host."""
    told = {(a, b): code for a, b, code in links}
    topology = NodeTopology(
        source="test",
        devices=tuple(TopologyDevice(name=f"GPU{index}", index=index) for index in range(4)),
        links=tuple(
            Connection(a=f"GPU{a}", b=f"GPU{b}", link=LinkClass.parse(told.get((a, b), "PHB")))
            for a in range(4)
            for b in range(a + 1, 4)
        ),
    )
    machine = Machine(name="box", devices=devices(*["V100-32GB-SXM"] * 4), topology=topology)
    return Node(node_id=node_id, machine=machine, labels=labels or {})


def shapes(cluster: ClusterSpec) -> list[str]:
    return [str(shape) for shape in groups_to_measure(cluster)]


def test_cores_of_one_node() -> None:
    assert shapes(ClusterSpec(nodes=(cpus("a", 1),), origin="live")) == []
    groups = groups_to_measure(ClusterSpec(nodes=(cpus("a", 6),), origin="live"))
    assert list(map(str, groups)) == [f"{count} x cpu on 1 node over host" for count in (2, 4, 6)]
    assert next(iter(groups.values())) == (DeviceId("a", 0), DeviceId("a", 1))


def test_several_nodes_with_one_device_each_and_with_all() -> None:
    cluster = ClusterSpec(nodes=(cpus("a", 2), cpus("b", 2), cpus("c", 2)), origin="live")
    assert shapes(cluster) == [
        "2 x cpu on 1 node over host",
        "2 x cpu on 2 nodes over network",
        "4 x cpu on 2 nodes over network",
        "3 x cpu on 3 nodes over network",
        "6 x cpu on 3 nodes over network",
    ]


def test_a_pair_of_every_class_of_link() -> None:
    """A ring 0-1-2-3-0 of NV2, NV1, NV2, NV1: all four are joined by a tree whose weakest link is NV1."""
    node = wired("a", (0, 1, "NV2"), (1, 2, "NV1"), (2, 3, "NV2"), (0, 3, "NV1"))
    groups = groups_to_measure(ClusterSpec(nodes=(node,), origin="live"))
    found = {(shape.num_ranks, shape.link): [one.device_index for one in group] for shape, group in groups.items()}
    assert found == {(2, "NV2"): [0, 1], (2, "PHB"): [0, 2], (2, "NV1"): [0, 3], (4, "NV1"): [0, 1, 2, 3]}


def test_a_pair_of_nodes_at_every_level() -> None:
    nodes = tuple(wired(name, labels={"rack": rack}) for name, rack in (("a", "r1"), ("b", "r2"), ("c", "r1")))
    fabric = Fabric(levels=(FabricLevel(name="rack"), FabricLevel(name="spine")))
    cluster = ClusterSpec(nodes=nodes, origin="live", fabric=fabric)
    groups = groups_to_measure(cluster)
    found = {
        (shape.num_ranks, shape.link): sorted({one.node_id for one in group})
        for shape, group in groups.items()
        if shape.num_nodes > 1
    }
    assert found == {
        (2, "spine"): ["a", "b"],
        (8, "spine"): ["a", "b"],
        (2, "rack"): ["a", "c"],
        (8, "rack"): ["a", "c"],
        (3, "spine"): ["a", "b", "c"],
        (12, "spine"): ["a", "b", "c"],
    }


def test_types_by_themselves_and_together_but_gpus_never_with_cpus() -> None:
    nodes = (Node.of("a", devices("T4", "T4")), Node.of("b", devices("A30")), cpus("c", 2))
    found = {
        (shape.num_ranks, shape.device_type) for shape in groups_to_measure(ClusterSpec(nodes=nodes, origin="live"))
    }
    assert found == {(2, "T4"), (2, "cpu"), (2, "A30+T4"), (3, "A30+T4")}


def test_one_instance_of_each_gpu() -> None:
    parts = tuple(
        Device(type="A100-40GB-SXM", index=index, memory_bytes=1, gpu=index // 2, mig="3g.20gb") for index in range(4)
    )
    groups = groups_to_measure(ClusterSpec(nodes=(Node.of("a", parts),), origin="live"))
    assert list(groups.values()) == [(DeviceId("a", 0), DeviceId("a", 2))]


def test_the_shape_of_any_group() -> None:
    node = wired("a", (0, 1, "NV2"), (1, 3, "NV2"))
    network = Network(ClusterSpec(nodes=(node,), origin="live"))
    shape = group_shape(network, [DeviceId("a", index) for index in (0, 1, 3)])
    assert shape == GroupShape(num_ranks=3, num_nodes=1, device_type="V100-32GB-SXM", link="NV2")
