"""What a check of a cluster finds. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from heliostat.cluster.view.overview import some
from heliostat.values import Frozen

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The worst first."""


class Finding(Frozen):
    """One thing that is wrong or worth knowing."""

    severity: Severity
    """error: the cluster is not healthy. warning: it works, but worse than it could. info: good to know."""
    node: str
    """What the node is called, of many the first and the last; empty for the cluster as a whole."""
    what: str
    next_step: str
    """What to do about it."""


def on(node_ids: Iterable[str], names: Mapping[str, str]) -> str:
    """The names of the nodes as `Finding.node` has them."""
    found: Sequence[str] = [names.get(node_id, node_id) for node_id in node_ids]
    return some(found)
