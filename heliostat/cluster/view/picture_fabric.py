"""The fabric in the picture: a tree from left to right, equal branches drawn as one stack of cards."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.view.fabric_tree import Branch, Domain, Nodes, domain_name, fabric_tree, num_nodes
from heliostat.cluster.view.picture_style import FAINT, INK, MARGIN, PAPER, TINT, WIDTH, shortened, write
from heliostat.cluster.view.pools import Pool
from heliostat.cluster.view.words import count_in_words, devices_in_words, level_in_words

ROW, BOX, GAP, WIDEST = 0.66, 0.44, 0.6, 3.3
"""Height of a row and of a box in it, the space between two columns, and the widest box."""
MAX_ROWS = 16


class FabricDrawing:
    """Draws the tree of one cluster, from `top` downwards."""

    def __init__(self, axes: Axes, cluster: ClusterSpec, pools: tuple[Pool, ...], top: float) -> None:
        self._axes = axes
        self._levels = tuple(reversed(cluster.fabric.levels)) if cluster.fabric else ()
        self._rails = cluster.fabric is not None and cluster.fabric.rails
        self._devices = {pool.name: devices_in_words(pool.machine.devices) for pool in pools}
        self._root = fabric_tree(cluster, pools)
        self._limit = next(
            limit for limit in range(MAX_ROWS, 0, -1) if _rows(self._root, limit) <= MAX_ROWS or limit == 1
        )
        self._num_columns = max(len(self._levels), 1) + 1
        room = (WIDTH - 2 * MARGIN - GAP * (self._num_columns - 1)) / self._num_columns
        self._width = min(room, WIDEST)
        self._top = top

    def draw(self) -> float:
        """Draw it all, and give where it ends."""
        headings = [(level.name, level_in_words(level)) for level in self._levels]
        for column, (name, words) in enumerate(headings or [("nothing tells what joins the nodes", "")]):
            write(self._axes, self._x(column), self._top + 0.1, name, size=11, weight="bold")
            write(self._axes, self._x(column), self._top + 0.33, words, size=9, color=FAINT)
        write(self._axes, self._x(self._num_columns - 1), self._top + 0.1, "nodes", size=11, weight="bold")
        lines = (self._root.level or "network", count_in_words(sum(map(num_nodes, self._root.branches)), "node"))
        _, bottom = self._draw_domain(self._root, 0, self._top + 0.55, lines, count=1, named=True)
        if self._rails:
            text = f"rails: NIC i of every node hangs on switch i of its {self._levels[-1].name}"
            write(self._axes, MARGIN, bottom + 0.15, text, size=9, color=FAINT)
            bottom += 0.3
        return bottom + 0.3

    def _x(self, column: int) -> float:
        return MARGIN + column * (self._width + GAP)

    def _draw_domain(
        self, domain: Domain, column: int, top: float, lines: tuple[str, str], *, count: int, named: bool
    ) -> tuple[float, float]:
        """Draw `domain` with all below it; give the height of its middle, and where it ends."""
        middles, y = [], top
        for branch in domain.branches[: self._limit]:
            middle, y = self._draw_branch(branch, column + 1, y, named=named)
            middles.append(middle)
        left_out = domain.branches[self._limit :]
        if left_out:
            nodes = sum(num_nodes(branch) for branch in left_out)
            middles.append(y + ROW / 2)
            self._draw_box(column + 1, y + ROW / 2, (f"and {len(left_out)} more", f"{nodes:,} nodes in all"), count=2)
            y += ROW
        middle = (middles[0] + middles[-1]) / 2
        for other in middles:
            self._draw_edge(column, middle, other)
        self._draw_box(column, middle, lines, count=count)
        return middle, y

    def _draw_branch(self, branch: Branch, column: int, top: float, *, named: bool) -> tuple[float, float]:
        single = branch.count == 1
        if isinstance(branch.of, Nodes):
            lines = (f"{branch.count:,} x {branch.of.machine}", self._devices[branch.of.machine])
            self._draw_box(self._num_columns - 1, top + ROW / 2, lines, count=branch.count, leaf=True)
            return top + ROW / 2, top + ROW
        size = count_in_words(num_nodes(branch) // branch.count, "node")
        if single:
            lines = (domain_name(branch.of.level, branch.names[0]) if named else branch.of.level, size)
        else:
            lines = (f"{branch.count} x {branch.of.level}", f"{size} in each")
        return self._draw_domain(branch.of, column, top, lines, count=branch.count, named=named and single)

    def _draw_box(self, column: int, middle: float, lines: tuple[str, str], *, count: int, leaf: bool = False) -> None:
        """A box with a title and a line below it; a stack of them for more than one."""
        x, y = self._x(column), middle - BOX / 2
        for offset in (0.07, 0.035, 0.0) if count > 1 else (0.0,):
            self._axes.add_patch(
                FancyBboxPatch(
                    (x + offset, y - offset),
                    self._width - 0.07,
                    BOX,
                    boxstyle="round,pad=0,rounding_size=0.05",
                    facecolor=TINT if leaf else PAPER,
                    edgecolor=INK,
                    linewidth=0.8,
                )
            )
        title, detail = lines
        letters = self._width - 0.2
        write(self._axes, x + 0.1, middle - 0.09, shortened(title, int(letters * 10)), size=9.5, weight="bold")
        write(self._axes, x + 0.1, middle + 0.1, shortened(detail, int(letters * 14)), size=7.5)

    def _draw_edge(self, column: int, start: float, end: float) -> None:
        """A line from a box to one of the next column; to nodes that no label puts further in it is a long one."""
        x = self._x(column) + self._width - 0.07
        middle = x + GAP / 2
        self._axes.plot(
            [x, middle, middle, self._x(column + 1)], [start, start, end, end], color=FAINT, linewidth=1, zorder=0
        )


def draw_fabric(axes: Axes, cluster: ClusterSpec, pools: tuple[Pool, ...], top: float) -> float:
    """Draw the network between the nodes below `top`, and give where it ends."""
    return FabricDrawing(axes, cluster, pools, top).draw()


def _rows(domain: Domain, limit: int) -> int:
    shown = domain.branches[:limit]
    inside = sum(_rows(branch.of, limit) if isinstance(branch.of, Domain) else 1 for branch in shown)
    return inside + (len(domain.branches) > limit)
