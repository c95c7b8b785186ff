"""Nodes that are the same machine, and what to call them: what tables and pictures speak of. Pure."""

import re
from collections import Counter
from dataclasses import dataclass

from heliostat.cluster.layout import machine_names
from heliostat.cluster.machine import Machine
from heliostat.cluster.spec import ClusterSpec, Node

_RAY_ID = re.compile(r"[0-9a-f]{56}")


@dataclass(frozen=True)
class Pool:
    """Nodes of one machine."""

    name: str
    """Of the machine, as the written form of the cluster has it."""
    machine: Machine
    nodes: tuple[Node, ...]


def pools(cluster: ClusterSpec) -> tuple[Pool, ...]:
    """Every node in exactly one pool, in the order of the nodes."""
    names = machine_names(cluster.nodes)
    members: dict[str, list[Node]] = {name: [] for name in names.values()}
    for node in cluster.nodes:
        members[names[node.machine]].append(node)
    return tuple(
        Pool(name=names[nodes[0].machine], machine=nodes[0].machine, nodes=tuple(nodes)) for nodes in members.values()
    )


def node_names(cluster: ClusterSpec) -> dict[str, str]:
    """What to call each node, by its id: its host where no two nodes share one, else its id, of Ray's the start."""
    hosts = Counter(node.hostname for node in cluster.nodes)
    own = all(host and count == 1 for host, count in hosts.items())
    return {node.node_id: node.hostname if own else short_id(node.node_id) for node in cluster.nodes}


def short_id(node_id: str) -> str:
    """The first digits of an id that Ray made, which tell nodes apart; a name from a file as it is."""
    return node_id[:12] if _RAY_ID.fullmatch(node_id) else node_id
