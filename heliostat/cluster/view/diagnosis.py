"""What the doctor found, for the terminal. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from heliostat.cluster.doctor.examine import is_healthy
from heliostat.cluster.doctor.finding import SEVERITIES, Finding
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.view.table import EMULATED
from heliostat.cluster.view.words import count_in_words

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def diagnosis(cluster: ClusterSpec, source: str, findings: Sequence[Finding]) -> Group:
    """The findings about `cluster`, which is at `source`, and the verdict."""
    return Group(*_parts(cluster, source, findings))


def _parts(cluster: ClusterSpec, source: str, findings: Sequence[Finding]) -> Iterator[RenderableType]:
    if cluster.origin == "emulated":
        yield Text(f" {EMULATED} ", style="bold reverse magenta")
    for one in findings:
        where = f"{one.node}: " if one.node else ""
        yield Text.assemble((f"{one.severity:<8}", _STYLES[one.severity]), (where, "bold"), one.what)
        yield Padding(Text(f"next: {one.next_step}", style="dim"), (0, 0, 0, 8))
    counts = Counter(one.severity for one in findings)
    told = ", ".join(count_in_words(counts[one], one) for one in SEVERITIES if counts[one])
    verdict = ("healthy", "bold green") if is_healthy(findings) else ("NOT healthy", "bold red")
    size = f"{count_in_words(len(cluster.nodes), 'node')}, {count_in_words(cluster.num_devices, 'device')}"
    yield Text.assemble(f"{source}: ", verdict, f" ({size}; {told or 'nothing found'})")
