"""Do ranks cross sockets without need, and is it known how devices are joined? Pure.

Equal nodes have equal findings, so each machine is looked at once.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from heliostat.cluster.doctor.finding import Finding, on
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.topology import LinkKind, NodeTopology
from heliostat.cluster.view.pools import Pool, pools


def check_joints(cluster: ClusterSpec, names: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about the topology of every machine."""
    for pool in pools(cluster):
        node = on((one.node_id for one in pool.nodes), names)
        topology = pool.machine.topology
        if topology is None:
            yield from _unknown(node, pool)
            continue
        yield from _incomplete(node, topology)
        yield from _rank_order(node, topology)
        yield from _far_nics(node, topology)


def _unknown(node: str, pool: Pool) -> Iterator[Finding]:
    devices = [device for device in pool.machine.devices if device.type != "cpu"]
    if len(devices) > 1:
        yield Finding(
            severity="warning",
            node=node,
            what=f"nothing tells how its {len(devices)} devices are joined",
            next_step="describe the machine in a cluster file, or measure it: heliostat cluster calibrate",
        )


def _incomplete(node: str, topology: NodeTopology) -> Iterator[Finding]:
    if topology.missing:
        yield Finding(
            severity="warning",
            node=node,
            what=f"its topology is not complete ({topology.source}): {'; '.join(topology.missing)} is missing",
            next_step="ask the node again as root, outside a container; or describe the machine in a cluster file",
        )


def _rank_order(node: str, topology: NodeTopology) -> Iterator[Finding]:
    """Ranks follow the indices of devices; a ring over them should enter each socket once."""
    numa = {device.name: device.numa_affinity for device in topology.devices}
    for island in topology.islands():
        sockets = [numa[name] for name in island.devices]
        distinct = list(dict.fromkeys(sockets))
        if len(distinct) < 2 or () in distinct:
            continue
        crossings = sum(a != b for a, b in pairwise(sockets))
        where = f"the island {_span(island.devices)} is spread over NUMA nodes {_numbers(distinct)}"
        if crossings > len(distinct) - 1:
            order = sorted(island.devices, key=lambda name: distinct.index(numa[name]))
            yield Finding(
                severity="warning",
                node=node,
                what=f"{where}, and ranks in index order cross sockets {crossings} times",
                next_step=f"an order that crosses {len(distinct) - 1} times: {', '.join(order)}",
            )
        else:
            yield Finding(
                severity="info",
                node=node,
                what=f"{where}: host memory and cores of one are far from the devices of the other",
                next_step="bind each rank to the cores of its device's NUMA node",
            )


def _far_nics(node: str, topology: NodeTopology) -> Iterator[Finding]:
    """Devices whose traffic to other nodes must cross sockets."""
    far = [
        device.name
        for device in topology.devices
        for nearest in [[topology.link(device.name, nic) for nic in topology.nearest_nics(device.name)]]
        if nearest and all(link is not None and link.kind is LinkKind.SYS for link in nearest)
    ]
    if far:
        yield Finding(
            severity="warning",
            node=node,
            what=f"{_span(far)} reach other nodes only through a NIC of another NUMA node",
            next_step="give the socket a NIC of its own, or let ranks near a NIC talk to other nodes",
        )


def _span(devices: tuple[str, ...] | list[str]) -> str:
    return ", ".join(devices) if len(devices) < 3 else f"{devices[0]} .. {devices[-1]}"


def _numbers(numa: list[tuple[int, ...]]) -> str:
    return " and ".join("+".join(map(str, one)) for one in numa)
