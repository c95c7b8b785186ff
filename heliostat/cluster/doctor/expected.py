"""Is the cluster that was found the one that a file describes? Pure.

Nodes are matched by name where the file's names are names of nodes here, else by what they are made of.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations

from heliostat.cluster.doctor.finding import Finding, Severity, on
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.survey import Survey
from heliostat.cluster.view.pools import node_names
from heliostat.cluster.view.words import devices_in_words

Kinds = Counter[tuple[str, str]]
"""Type and MIG profile of devices -> how many; the profile of a whole device is empty."""


def compare(survey: Survey, expected: ClusterSpec) -> Iterator[Finding]:
    """What differs between `expected` and what `survey` found; lost nodes are told elsewhere."""
    names = node_names(survey.cluster)
    here = {name: node for node in survey.cluster.nodes for name in _own_names(node)}
    lost = {name for node in survey.lost for name in (node.node_id, node.name)}
    pairs = [(node, here.get(node.node_id) or here.get(node.hostname)) for node in expected.nodes]
    if all(found is None and lost.isdisjoint(_own_names(node)) for node, found in pairs):
        yield from _by_content(survey.cluster, expected, names)
        return
    for node, found in pairs:
        if found is not None:
            yield from _node(node, found, expected, names[found.node_id])
        elif lost.isdisjoint(_own_names(node)):
            yield Finding(
                severity="error",
                node=node.node_id,
                what=f"is missing: the file has it with {devices_in_words(node.machine.devices)}",
                next_step="start Ray on it, or take it out of the file",
            )
    matched = {found.node_id for _, found in pairs if found is not None}
    for node in survey.cluster.nodes:
        if node.node_id not in matched:
            yield _additional(names[node.node_id], devices_in_words(node.machine.devices))


def _own_names(node: Node) -> set[str]:
    return {node.node_id, node.hostname} - {""}


def _by_content(cluster: ClusterSpec, expected: ClusterSpec, names: Mapping[str, str]) -> Iterator[Finding]:
    """Names do not match, as in a file with `count: 32`: nodes with equal devices stand for one another."""
    wanted, found = _by_devices(expected), _by_devices(cluster)
    for words in dict.fromkeys((*wanted, *found)):
        want, have = len(wanted.get(words, ())), found.get(words, [])
        if len(have) < want:
            yield Finding(
                severity="error",
                node="",
                what=f"{want - len(have)} of {want} nodes with {words} are missing",
                next_step="start Ray on them, or correct the file; heliostat cluster show tells what is there",
            )
        elif want < len(have):
            many = f"{len(have) - want} more than in the file: {words}" if want else words
            yield _additional(on(have, names), many)


def _by_devices(cluster: ClusterSpec) -> dict[str, list[str]]:
    """What nodes have, in words -> their ids. Drivers keep some memory for themselves, so that is left out."""
    nodes: dict[str, list[str]] = {}
    for node in cluster.nodes:
        words = " + ".join(f"{count} x {_kind(kind)}" for kind, count in sorted(_kinds(node).items()))
        nodes.setdefault(words, []).append(node.node_id)
    return nodes


def _node(wanted: Node, found: Node, expected: ClusterSpec, name: str) -> Iterator[Finding]:
    want, have = _kinds(wanted), _kinds(found)
    for kind, count in (want - have).items():
        yield Finding(
            severity="error",
            node=name,
            what=f"{count} of {want[kind]} x {_kind(kind)} missing; it has {devices_in_words(found.machine.devices)}",
            next_step="nvidia-smi -L on the node; then look at its log for XID errors, or correct the file",
        )
    if have - want:
        yield _additional(name, " + ".join(f"{count} x {_kind(kind)}" for kind, count in (have - want).items()))
    if want == have:
        yield from _links(wanted, found, name)
    for level in expected.fabric.levels if expected.fabric else ():
        place, told = wanted.labels.get(level.name), found.labels.get(level.name)
        if place is not None and told is not None and place != told:
            yield Finding(
                severity="error",
                node=name,
                what=f"its label {level.name}={told} contradicts the file, which has it in {level.name} {place}",
                next_step="correct the label, or the file",
            )


def _links(wanted: Node, found: Node, name: str) -> Iterator[Finding]:
    """Pairs of devices that are joined otherwise than in the file."""
    worse: list[str] = []
    other: list[str] = []
    for a, b in combinations(sorted(wanted.machine.by_index.keys() & found.machine.by_index.keys()), 2):
        want, have = wanted.machine.link(a, b), found.machine.link(a, b)
        if want is not None and have is not None and str(want) != str(have):
            text = f"{a} - {b} by {have} instead of {want}"
            (worse if want.closeness < have.closeness else other).append(text)
    severities: tuple[tuple[Severity, list[str]], ...] = (("error", worse), ("warning", other))
    for severity, pairs in severities:
        if pairs:
            more = f" and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
            yield Finding(
                severity=severity,
                node=name,
                what=f"devices are joined otherwise than in the file: {pairs[0]}{more}",
                next_step="nvidia-smi nvlink -s; nvidia-smi topo -m; or correct the file",
            )


def _additional(node: str, what: str) -> Finding:
    return Finding(
        severity="warning",
        node=node,
        what=f"not in the file: {what}",
        next_step="add it to the file, so that plans made from it count with it",
    )


def _kinds(node: Node) -> Kinds:
    return Counter((device.type, device.mig or "") for device in node.machine.devices)


def _kind(kind: tuple[str, str]) -> str:
    return "/".join(filter(None, kind))
