"""How devices are joined: what is not known, and where ranks would cross sockets."""

from typing import Any

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.topology import NodeTopology
from tests.cluster.doctor.nodes import cluster, found, told


def spread(numa: str, **topology: Any) -> list[str]:
    """Findings about four GPUs whose NUMA nodes are the digits of `numa`."""
    spec = cluster({"count": 2})
    machine = spec.nodes[0].machine
    assert machine.topology is not None
    devices = tuple(
        device.model_copy(update={"numa_affinity": (int(one),)})
        for device, one in zip(machine.topology.devices, numa, strict=True)
    )
    changed = NodeTopology(**{**dict(machine.topology), "devices": devices, **topology})
    nodes = tuple(
        node.model_copy(update={"machine": machine.model_copy(update={"topology": changed})}) for node in spec.nodes
    )
    return told(found(spec.model_copy(update={"nodes": nodes})))


def test_ranks_in_index_order_cross_sockets_more_often_than_needed() -> None:
    [line] = spread("0101")
    assert line.startswith("warning a100-0, a100-1: the island GPU0 .. GPU3 is spread over NUMA nodes 0 and 1")
    assert line.endswith("ranks in index order cross sockets 3 times")


def test_an_island_over_two_sockets_in_order_is_worth_knowing() -> None:
    [line] = spread("0011")
    assert line.startswith("info a100-0, a100-1: the island GPU0 .. GPU3 is spread over NUMA nodes 0 and 1")
    assert spread("0000") == []


def test_a_topology_that_is_not_complete() -> None:
    [line] = spread("0000", source="a text", missing=("the row of GPU3",))
    assert line == "warning a100-0, a100-1: its topology is not complete (a text): the row of GPU3 is missing"


def unjoined(devices: Any, **machine: Any) -> list[str]:
    spec = ClusterSpec.model_validate({"machines": {"m": {"devices": devices, **machine}}, "nodes": [{"machine": "m"}]})
    return told(found(spec))


def test_devices_that_nobody_told_the_links_of() -> None:
    assert unjoined("4 x T4") == ["warning m-0: nothing tells how its 4 devices are joined"]
    assert unjoined("1 x T4") == []
    assert unjoined({"type": "cpu", "count": 4, "memory_gib": 1}) == []


def test_a_nic_on_the_other_socket() -> None:
    nics = [{"name": "mlx5_0"}]
    links = {
        "NODE": [["GPU0", "mlx5_0"], ["GPU1", "mlx5_0"]],
        "SYS": [["GPU2", "mlx5_0"], ["GPU3", "mlx5_0"]],
        "NV4": "all",
    }
    assert unjoined("4 x A100-40GB-SXM", links=links, nics=nics) == [
        "warning m-0: GPU2, GPU3 reach other nodes only through a NIC of another NUMA node"
    ]
