"""One kind of machine in the picture: a heatmap of its links, and a legend that says what each class is and carries."""

import math
import textwrap
from collections.abc import Iterator
from itertools import groupby, product

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from heliostat.cluster.measured import Measured
from heliostat.cluster.topology import SELF, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.cluster.view.picture_style import (
    FAINT,
    INK,
    MARGIN,
    PAPER,
    WIDTH,
    Color,
    readable_on,
    shortened,
    strong,
    write,
)
from heliostat.cluster.view.pools import Pool
from heliostat.cluster.view.words import count_in_words, devices_in_words, gib, links_in_words, meaning, nics_in_words
from heliostat.cluster.wiring import Wiring

LABELS, LEGEND, HEADING = 1.0, 7.3, 0.75
"""Width left of the cells, where the legend begins, height above the column labels."""
CELL, MATRIX = 0.52, 5.4
"""The largest cell, and the width of all cells beside a legend."""
MAX_BESIDE = 20
"""More devices and NICs get the whole width, below the legend."""
LINE = 0.27
_STRENGTH = {
    LinkKind.PIX: 0.52,
    LinkKind.PXB: 0.42,
    LinkKind.PHB: 0.32,
    LinkKind.PCIE: 0.26,
    LinkKind.NODE: 0.2,
    LinkKind.SYS: 0.07,
}
NOTHING: Color = (0.87, 0.88, 0.89)
MOST_LINKS = 18
"""NVLinks of an H100, the most that one bundle has."""


def draw_machine(axes: Axes, pool: Pool, wiring: Wiring, measured: Measured | None, top: float) -> float:
    """Draw the machine of `pool` below `top`, and give where it ends."""
    axes.plot([MARGIN, WIDTH - MARGIN], [top, top], color=FAINT, linewidth=0.8)
    write(axes, MARGIN, top + 0.3, f"Machine {shortened(pool.name, 50)}", size=14, weight="bold")
    write(axes, WIDTH - MARGIN, top + 0.3, count_in_words(len(pool.nodes), "node"), size=12, ha="right")
    top += HEADING
    topology = pool.machine.topology
    if topology is None or not topology.links:
        return _draw_facts(axes, pool, MARGIN, top) + 0.3
    if len(_ends(topology)) > MAX_BESIDE:
        facts = _draw_facts(axes, pool, MARGIN, top)
        legend = _draw_legend(axes, topology, wiring, measured, top)
        return _draw_matrix(axes, topology, max(facts, legend), WIDTH - 2 * MARGIN - LABELS) + 0.3
    below = _draw_matrix(axes, topology, top, MATRIX)
    legend = _draw_legend(axes, topology, wiring, measured, _draw_facts(axes, pool, LEGEND, top) + 0.2)
    return max(below, legend) + 0.3


def _draw_facts(axes: Axes, pool: Pool, left: float, top: float) -> float:
    for line in _facts(pool):
        write(axes, left, top, line, size=10)
        top += LINE
    return top


def _facts(pool: Pool) -> Iterator[str]:
    machine = pool.machine
    host = [f"{machine.num_cpus} CPUs"] if machine.num_cpus else []
    host += [gib(machine.memory_bytes)] if machine.memory_bytes else []
    told = {
        "devices": devices_in_words(machine.devices),
        "links": links_in_words(machine),
        "NICs": nics_in_words(machine),
        "host": ", ".join(host),
        "nobody told": ", ".join(machine.topology.missing) if machine.topology else "",
    }
    for what, text in told.items():
        if text:
            yield from textwrap.wrap(f"{what}: {text}", 58, subsequent_indent="    ", max_lines=3)


def _draw_matrix(axes: Axes, topology: NodeTopology, top: float, width: float) -> float:
    """Draw a cell for each pair of ends, devices first, and give where the last row ends."""
    ends = _ends(topology)
    labels = [shortened(end.name, 9) for end in ends]
    cell = min(CELL, width / (len(ends) + 0.25))
    size = min(9.5, cell * 25)
    x, y = MARGIN + LABELS, top + 0.1 * max(map(len, labels))
    # devices and NICs with a little space between them
    places = [place + 0.25 * isinstance(end, Nic) for place, end in enumerate(ends)]
    for label, place in zip(labels, places, strict=True):
        write(axes, x - 0.1, y + (place + 0.5) * cell, label, size=size, ha="right")
        write(axes, x + (place + 0.5) * cell, y - 0.08, label, size=size, ha="center", rotation=90, va="bottom")
    for (row, a), (column, b) in product(zip(places, ends, strict=True), repeat=2):
        _draw_cell(axes, (x + column * cell, y + row * cell), cell, topology.link(a.name, b.name))
    for numa, run in groupby(zip(places, ends, strict=True), key=lambda item: (item[1].numa_affinity, type(item[1]))):
        rows = [place for place, _ in run]
        _draw_bracket(axes, y + rows[0] * cell, y + (rows[-1] + 1) * cell, numa[0])
    return y + (places[-1] + 1) * cell


def _ends(topology: NodeTopology) -> list[TopologyDevice | Nic]:
    """The devices, and the NICs where anything is told of how they are joined."""
    told = {name for one in topology.links for name in (one.a, one.b)}
    return [*topology.devices, *(nic for nic in topology.nics if nic.name in told)]


def _draw_cell(axes: Axes, corner: tuple[float, float], cell: float, link: LinkClass | None) -> None:
    x, y = corner
    color = NOTHING if link in {None, SELF} else _color(link)
    axes.add_patch(Rectangle(corner, cell, cell, facecolor=color, edgecolor="white", linewidth=1.2))
    text = "?" if link is None else "" if link == SELF else str(link)
    write(axes, x + cell / 2, y + cell / 2, text, size=min(9.5, cell * 21), color=readable_on(color), ha="center")


def _draw_bracket(axes: Axes, start: float, end: float, numa: tuple[int, ...]) -> None:
    """Mark the rows of one NUMA node."""
    if numa:
        x, text = MARGIN + 0.15, f"NUMA {','.join(map(str, numa))}"
        axes.plot([x, x], [start + 0.05, end - 0.05], color=INK, linewidth=1.5, solid_capstyle="butt")
        write(axes, x - 0.06, (start + end) / 2, text, size=7.5, ha="right", rotation=90)


def _color(link: LinkClass) -> Color:
    if link.kind in _STRENGTH:
        return strong(_STRENGTH[link.kind])
    return strong(0.66 + 0.32 * min(1.0, math.log(link.num_links or 1) / math.log(MOST_LINKS)))


def _draw_legend(axes: Axes, topology: NodeTopology, wiring: Wiring, measured: Measured | None, top: float) -> float:
    classes = sorted({connection.link for connection in topology.links}, key=lambda link: link.closeness)
    write(axes, LEGEND, top, "link, the closest first", size=9, color=FAINT)
    write(axes, WIDTH - MARGIN, top, "two devices get, each way", size=9, color=FAINT, ha="right")
    for link in classes:
        top += LINE + 0.06
        _draw_class(axes, top, (str(link), meaning(link)), _color(link))
        write(axes, WIDTH - MARGIN, top, _rate(link, wiring, measured), size=9.5, ha="right")
    ends = _ends(topology)
    if len({frozenset((one.a, one.b)) for one in topology.links}) < len(ends) * (len(ends) - 1) // 2:
        top += LINE + 0.06
        _draw_class(axes, top, ("?", "nobody told"), NOTHING)
    return top + LINE


def _draw_class(axes: Axes, y: float, words: tuple[str, str], color: Color) -> None:
    axes.add_patch(Rectangle((LEGEND, y - 0.12), 0.55, 0.24, facecolor=color, edgecolor=PAPER))
    write(axes, LEGEND + 0.275, y, words[0], size=8, color=readable_on(color), ha="center")
    write(axes, LEGEND + 0.68, y, words[1], size=9.5)


def _rate(link: LinkClass, wiring: Wiring, measured: Measured | None) -> str:
    """What two devices get of a link of this class: the least of all such pairs."""
    rates = {pair: found.bytes_per_s for pair, found in wiring.links.items() if wiring.machine.link(*pair) == link}
    if not rates:
        return ""
    types = {wiring.machine.by_index[index].type for pair in rates for index in pair}
    was_measured = measured is not None and measured.link(types, num_nodes=1, link=str(link)) is not None
    return f"{min(rates.values()) / 1e9:.3g} GB/s {'measured' if was_measured else 'expected'}"
