"""An order of a cluster's nodes that keeps neighbours in the fabric together and does not hang on names. Pure."""

from typing import Any

from heliostat.cluster.spec import ClusterSpec, Node


def in_order(cluster: ClusterSpec) -> list[Node]:
    """The nodes, those of one domain beside one another, larger and better joined ones first."""
    paths = {node.node_id: tuple(reversed(domains(cluster, node))) for node in cluster.nodes}
    content = {node.node_id: _content(node) for node in cluster.nodes}
    return _sorted(list(cluster.nodes), paths, content, 0)


def domains(cluster: ClusterSpec, node: Node) -> tuple[str, ...]:
    """The domains of `node` in the fabric, the innermost first, without that which holds all."""
    levels = cluster.fabric.levels if cluster.fabric else ()
    return tuple(node.labels.get(level.name, f"?{node.node_id}") for level in levels[:-1])


def _sorted(nodes: list[Node], paths: dict[str, tuple[str, ...]], content: dict[str, Any], depth: int) -> list[Node]:
    if not nodes or depth == len(paths[nodes[0].node_id]):
        return sorted(nodes, key=lambda node: content[node.node_id])
    members: dict[str, list[Node]] = {}
    for node in nodes:
        members.setdefault(paths[node.node_id][depth], []).append(node)
    inner = [_sorted(some, paths, content, depth + 1) for some in members.values()]
    inner.sort(key=lambda some: (-len(some), [content[node.node_id] for node in some]))
    return [node for some in inner for node in some]


def _content(node: Node) -> tuple[object, ...]:
    topology = node.machine.topology
    bits = sum(nic.bits_per_s or 0 for nic in topology.nics) if topology else 0
    links = len(topology.links) if topology else 0
    rates = sorted((name, -link.bytes_per_s) for name, link in node.machine.figures.items())
    return (-len(node.devices), tuple(device.kind for device in node.devices), -bits, -links, rates, node.speeds)
