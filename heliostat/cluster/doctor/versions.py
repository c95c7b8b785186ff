"""Do all nodes run the same software? Pure."""

from collections.abc import Iterator, Mapping

from heliostat.cluster.doctor.finding import Finding, Severity, on
from heliostat.cluster.node_report import NodeReport

_SUBJECTS: dict[str, tuple[Severity, str]] = {
    "python": ("error", "Ray refuses to run a function on another Python: install one version everywhere"),
    "ray": ("error", "Ray refuses nodes of another version: install one version everywhere"),
    "heliostat": ("error", "workers would run other code than the driver: install one version everywhere"),
    "torch": ("error", "ranks of one job must run one version: install the same everywhere"),
    "nccl": ("error", "ranks of one job must run one version: install the same everywhere"),
    "driver": ("warning", "update the driver of the nodes that are behind"),
    "cuda": ("warning", "update the driver of the nodes that are behind"),
    "nvml": ("warning", "update the driver of the nodes that are behind"),
}
_FOLLOWS = {"cuda": "driver", "nvml": "driver"}
"""These come with the driver: where drivers differ, that alone is told."""
_ONLY_WHERE_THERE = {"driver", "cuda", "nvml", "nccl"}
"""A node without GPUs has none of these, which is no difference."""


def check_versions(reports: Mapping[str, NodeReport], names: Mapping[str, str]) -> Iterator[Finding]:
    """A finding for each software whose versions differ between nodes."""
    for subject, (severity, next_step) in _SUBJECTS.items():
        nodes = _by_version(reports, subject)
        if len(nodes) < 2 or len(_by_version(reports, _FOLLOWS.get(subject, ""))) > 1:
            continue
        told = "; ".join(f"{version} on {on(members, names)}" for version, members in nodes.items())
        fewest = min(nodes.values(), key=len)
        yield Finding(severity=severity, node=on(fewest, names), what=f"{subject} differs: {told}", next_step=next_step)


def _by_version(reports: Mapping[str, NodeReport], subject: str) -> dict[str, list[str]]:
    """Version -> the nodes that have it."""
    nodes: dict[str, list[str]] = {}
    for node_id, report in reports.items():
        version = report.versions.get(subject)
        if version is not None or (subject in _SUBJECTS and subject not in _ONLY_WHERE_THERE):
            nodes.setdefault(version or "none", []).append(node_id)
    return nodes
