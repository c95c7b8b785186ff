"""Small clusters for the planner's tests."""

from itertools import combinations

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice


def box(
    *types: str, gbit_per_s: float = 100.0, bytes_per_s: float = 100e9, speed: float = 1.0
) -> tuple[Machine, tuple[float, ...]]:
    """A machine whose devices are all joined by one NVLink, with one NIC; and the speeds of its devices."""
    devices = tuple(
        Device(type=kind, index=index, memory_bytes=builtin().find(kind).memory_bytes or 1)
        for index, kind in enumerate(types)
    )
    link = LinkClass(kind=LinkKind.NVLINK, num_links=1)
    machine = Machine(
        name=" + ".join(types),
        devices=devices,
        topology=NodeTopology(
            source="test",
            devices=tuple(TopologyDevice(name=f"GPU{at}", index=at) for at in range(len(types))),
            nics=(Nic(name="nic", label="nic", bits_per_s=int(gbit_per_s * 1e9)),),
            links=tuple(Connection(a=f"GPU{a}", b=f"GPU{b}", link=link) for a, b in combinations(range(len(types)), 2)),
        ),
        figures={"NV1": Link(latency_s=4e-6, bytes_per_s=bytes_per_s)},
    )
    return machine, (speed,) * len(types)


def cluster(*boxes: tuple[Machine, tuple[float, ...]]) -> ClusterSpec:
    """Those machines, one node each."""
    return ClusterSpec(
        nodes=tuple(
            Node(node_id=f"n{number}", machine=machine, speeds=speeds) for number, (machine, speeds) in enumerate(boxes)
        ),
        origin="file",
    )
