"""The fabric as a tree to look at, equal domains folded into one branch: `79 x rack`, each of 16 nodes. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from heliostat.cluster.fabric import FabricLevel
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.view.pools import Pool


@dataclass(frozen=True)
class Domain:
    """What is in one domain of a level; equal for domains that differ in names alone."""

    level: str
    branches: tuple["Branch", ...]


@dataclass(frozen=True)
class Nodes:
    """Nodes of one machine."""

    machine: str


@dataclass(frozen=True)
class Branch:
    """Equal things, how many of them."""

    count: int
    of: Domain | Nodes
    names: tuple[str, ...] = field(default=(), compare=False)
    """Of the domains; of those inside a folded domain only the first one's."""


def fabric_tree(cluster: ClusterSpec, pools: tuple[Pool, ...]) -> Domain:
    """The domain that all nodes are in: the outermost level, or a nameless one where there is no fabric."""
    machines = {node.node_id: pool.name for pool in pools for node in pool.nodes}
    levels = cluster.fabric.levels if cluster.fabric else ()
    inner = tuple(reversed(levels[:-1]))
    return Domain(level=levels[-1].name if levels else "", branches=_branches(cluster.nodes, inner, machines))


def domain_name(level: str, name: str) -> str:
    """What to call a domain: `rack r7`, but `rack-7` as it is."""
    return name if name.startswith(level) else f"{level} {name}"


def num_nodes(branch: Branch) -> int:
    """Nodes below all that `branch` stands for."""
    inside = sum(num_nodes(one) for one in branch.of.branches) if isinstance(branch.of, Domain) else 1
    return branch.count * inside


def _branches(nodes: tuple[Node, ...], levels: tuple[FabricLevel, ...], machines: dict[str, str]) -> tuple[Branch, ...]:
    """What is below a domain with `nodes`; `levels` are those further in, the outermost of them first."""
    if not levels:
        counts = Counter(machines[node.node_id] for node in nodes)
        return tuple(Branch(count, Nodes(machine)) for machine, count in sorted(counts.items()))
    level, *inner = levels
    members: dict[str | None, list[Node]] = {}
    for node in nodes:
        members.setdefault(node.labels.get(level.name), []).append(node)
    folded: dict[Domain | Nodes, list[str]] = {}
    for name, inside in members.items():
        if name is not None:
            folded.setdefault(Domain(level.name, _branches(tuple(inside), tuple(inner), machines)), []).append(name)
    branches = [Branch(len(names), domain, tuple(names)) for domain, names in folded.items()]
    unlabelled = members.get(None, [])
    return (*branches, *(_branches(tuple(unlabelled), (), machines)))
