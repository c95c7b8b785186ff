"""Which groups of devices are worth measuring: one for every shape that training is likely to use. Pure."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

from heliostat.cluster.machine import Machine
from heliostat.cluster.measured import GroupShape
from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec, DeviceId
from heliostat.cluster.topology import SELF

CPU = "cpu"
Devices = tuple[DeviceId, ...]


def group_shape(network: Network, devices: Sequence[DeviceId]) -> GroupShape:
    """The shape of the group of `devices`."""
    nodes = list(dict.fromkeys(device.node_id for device in devices))
    machines = {node_id: network.cluster.by_id[node_id].machine for node_id in nodes}
    types = {machines[device.node_id].by_index[device.device_index].type for device in devices}
    return GroupShape(
        num_ranks=len(devices),
        num_nodes=len(nodes),
        device_type="+".join(sorted(types)),
        link=(
            _between(network, nodes)
            if len(nodes) > 1
            else _within(machines[nodes[0]], [device.device_index for device in devices])
        ),
    )


def groups_to_measure(cluster: ClusterSpec) -> dict[GroupShape, Devices]:
    """For each shape the first group that has it.

    Pairs; in a node powers of two and all its devices; of two nodes and of all nodes one device each and all of them.
    Among the devices of each type, and among accelerators of all types; never two instances of one GPU, which
    NCCL refuses, nor CPUs with GPUs.
    """
    network = Network(cluster)
    types = {device.type for node in cluster.nodes for device in node.machine.devices}
    accelerators = types - {CPU}
    found: dict[GroupShape, Devices] = {}
    for team in [*({one} for one in sorted(types)), *([accelerators] if len(accelerators) > 1 else [])]:
        for devices in _candidates(_by_node(cluster, team)):
            found.setdefault(group_shape(network, devices), devices)
    return {shape: devices for shape, devices in found.items() if shape.num_ranks > 1}


def _by_node(cluster: ClusterSpec, types: set[str]) -> list[Devices]:
    """The devices of these types node by node, one instance of each GPU."""
    nodes = []
    for node in cluster.nodes:
        first = {device.physical: device.index for device in reversed(node.machine.devices) if device.type in types}
        nodes.append(tuple(DeviceId(node.node_id, index) for index in sorted(first.values())))
    return [devices for devices in nodes if devices]


def _candidates(nodes: Sequence[Devices]) -> Iterator[Devices]:
    for devices in nodes:
        yield from combinations(devices, 2)
        yield from (devices[: 1 << shift] for shift in range(len(devices).bit_length()))
        yield devices
    for a, b in combinations(nodes, 2):
        yield a[0], b[0]
        yield a + b
    if nodes:
        yield tuple(devices[0] for devices in nodes)
        yield tuple(chain.from_iterable(nodes))


def _between(network: Network, nodes: Sequence[str]) -> str:
    fabric = network.cluster.fabric
    if fabric is None:
        return "network"
    return fabric.levels[max(network.meeting_level(nodes[0], other) for other in nodes[1:])].name


def _within(machine: Machine, indices: Sequence[int]) -> str:
    """The class of the weakest link of the tree that joins the devices over their closest links."""
    joined, left, weakest = {indices[0]}, set(indices[1:]), SELF
    while left:
        told = {(a, b): link for a in sorted(joined) for b in sorted(left) if (link := machine.link(a, b))}
        if not told:
            return "host"
        (_, nearest), link = min(told.items(), key=lambda item: item[1].closeness)
        weakest = max(weakest, link, key=lambda one: one.closeness)
        joined.add(nearest)
        left.remove(nearest)
    return str(weakest)
