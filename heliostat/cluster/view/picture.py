"""A cluster as a picture: the fabric as a tree, then how the devices and NICs of each kind of machine are joined.

Everything is drawn from the top of the page downwards on one pair of axes in inches; each part says where it ended.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode
from heliostat.cluster.view.overview import count_by_product
from heliostat.cluster.view.picture_fabric import draw_fabric
from heliostat.cluster.view.picture_links import draw_machine
from heliostat.cluster.view.picture_style import ALARM, FAINT, INK, MARGIN, WIDTH, write
from heliostat.cluster.view.pools import pools
from heliostat.cluster.view.table import EMULATED
from heliostat.cluster.view.words import count_in_words
from heliostat.errors import UserError

DOTS_PER_INCH = 110
MAX_MACHINES = 8
"""More kinds of machine make a page that nobody scrolls through; the table has them all."""

NOTES = (
    "A row and a column for each device, named GPU, and for each NIC, the way to other nodes. The darker, the closer.",
    "NUMA: the part of the host, often a socket, that the rows beside it hang on. GB/s expected: from the catalogue.",
)


def draw(cluster: ClusterSpec, path: Path, *, lost: tuple[LostNode, ...] = ()) -> None:
    """Write the picture of `cluster` to the PNG file `path`.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    bottom = draw_on(axes, cluster, lost)
    axes.set(xlim=(0, WIDTH), ylim=(bottom, 0))
    figure.set_size_inches(WIDTH, bottom)
    figure.set_dpi(DOTS_PER_INCH)
    try:
        canvas.print_png(str(path))
    except OSError as error:
        raise UserError("the picture cannot be written", where=str(path), got=str(error)) from error


def draw_on(axes: Axes, cluster: ClusterSpec, lost: tuple[LostNode, ...]) -> float:
    """Draw the whole picture on `axes`, and give where it ends."""
    found = pools(cluster)
    y = _draw_head(axes, cluster, lost)
    if len(cluster.nodes) > 1:
        y = draw_fabric(axes, cluster, found, y)
    network = Network(cluster)
    for pool in found[:MAX_MACHINES]:
        y = draw_machine(axes, pool, network.wiring(pool.nodes[0].node_id), cluster.measured, y)
    if len(found) > MAX_MACHINES:
        write(axes, MARGIN, y, f"and {len(found) - MAX_MACHINES} more kinds of machine: see the table", size=10)
        y += 0.4
    for line in NOTES:
        write(axes, MARGIN, y, line, size=9, color=FAINT)
        y += 0.25
    return y + 0.1


def _draw_head(axes: Axes, cluster: ClusterSpec, lost: tuple[LostNode, ...]) -> float:
    y = MARGIN
    if cluster.origin == "emulated":
        axes.add_patch(Rectangle((0, 0), WIDTH, 0.45, color=ALARM))
        write(axes, WIDTH / 2, 0.225, EMULATED, size=12, color="white", weight="bold", ha="center")
        y += 0.45
    for line, (text, size, color) in enumerate(_head(cluster, lost)):
        write(axes, MARGIN, y + 0.1, text, size=size, color=color, weight="bold" if line == 0 else "normal")
        y += 0.34
    return y + 0.15


def _head(cluster: ClusterSpec, lost: tuple[LostNode, ...]) -> Iterator[tuple[str, int, str]]:
    devices, nodes = count_in_words(cluster.num_devices, "device"), count_in_words(len(cluster.nodes), "node")
    yield f"{devices} on {nodes}", 17, INK
    products = ", ".join(f"{count:,} x {name}" for name, count in count_by_product(cluster).items())
    for line in textwrap.wrap(products, 120, max_lines=3):
        yield line, 11, INK
    for line in textwrap.wrap(f"LOST: {', '.join(node.name for node in lost)}", 100, max_lines=3) if lost else ():
        yield line, 12, ALARM
