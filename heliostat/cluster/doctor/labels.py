"""Do the labels of the nodes place them in the fabric, and do they tell the truth? Pure."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from heliostat.cluster.catalogue import Catalogue
from heliostat.cluster.doctor.finding import Finding, on
from heliostat.cluster.fabric import Fabric
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError


def check_labels(cluster: ClusterSpec, fabric: Fabric | None, names: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about the labels of all nodes; `fabric` says which of them place a node."""
    if fabric is None:
        yield from _no_fabric(cluster)
    else:
        yield from _unplaced(cluster, fabric, names)
        yield from _in_two_places(cluster, fabric, names)
    levels = {level.name for level in fabric.levels} if fabric else set()
    for node in cluster.nodes:
        yield from _other_product(node, levels, cluster.catalogue, names)


def _no_fabric(cluster: ClusterSpec) -> Iterator[Finding]:
    if len(cluster.nodes) > 1:
        yield Finding(
            severity="info",
            node="",
            what="nothing tells what joins the nodes: all count as equally far from one another",
            next_step="write the levels of switches into a cluster file, `fabric`, and label the nodes",
        )


def _unplaced(cluster: ClusterSpec, fabric: Fabric, names: Mapping[str, str]) -> Iterator[Finding]:
    """Of the outermost level no label is needed: it holds all nodes."""
    for level in fabric.levels[:-1]:
        without = [node.node_id for node in cluster.nodes if not node.labels.get(level.name)]
        if without:
            yield Finding(
                severity="warning",
                node=on(without, names),
                what=f"{len(without)} of {len(cluster.nodes)} nodes have no label '{level.name}': each counts as a "
                f"{level.name} of its own, far from all others",
                next_step=f"start Ray there with --labels={level.name}=NAME",
            )


def _in_two_places(cluster: ClusterSpec, fabric: Fabric, names: Mapping[str, str]) -> Iterator[Finding]:
    for inner, outer in pairwise(level.name for level in fabric.levels):
        above: dict[str, dict[str, list[str]]] = {}
        for node in cluster.nodes:
            if inner in node.labels and outer in node.labels:
                above.setdefault(node.labels[inner], {}).setdefault(node.labels[outer], []).append(node.node_id)
        for domain, places in above.items():
            if len(places) > 1:
                told = "; ".join(f"{outer} {place} on {on(nodes, names)}" for place, nodes in places.items())
                fewest = min(places.values(), key=len)
                yield Finding(
                    severity="error",
                    node=on(fewest, names),
                    what=f"{inner} {domain} is in {len(places)} places: {told}",
                    next_step=f"correct the labels '{inner}' and '{outer}' of these nodes",
                )


def _other_product(node: Node, levels: set[str], catalogue: Catalogue, names: Mapping[str, str]) -> Iterator[Finding]:
    """Labels that name a device type which the node does not have."""
    types = {device.type for device in node.machine.devices}
    for key, value in node.labels.items():
        named = set() if key in levels else _types_named(value, catalogue)
        if named and named.isdisjoint(types):
            yield Finding(
                severity="error",
                node=on([node.node_id], names),
                what=f"its label {key}={value} contradicts what it has: {', '.join(sorted(types))}",
                next_step="correct the label; or the wrong node joined under this name",
            )


def _types_named(value: str, catalogue: Catalogue) -> set[str]:
    """The types that a label's value means: one by its name or product, or a family, `A100`. The type cpu is none."""
    found = {name for name in catalogue.types if name.partition("-")[0].lower() == value.lower()}
    for spelling in (value, value.replace("-", " "), value.replace("_", " ")):
        try:
            found.add(catalogue.find(spelling).name)
        except UserError:
            continue
    return found - {"cpu"}
