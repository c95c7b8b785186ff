"""A cluster as tables in the terminal. Pure: an `Overview` in, rich renderables out."""

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.view.fabric_tree import Branch, Domain, domain_name, fabric_tree
from heliostat.cluster.view.overview import Calibration, Overview, PoolRow, some
from heliostat.cluster.view.pools import pools
from heliostat.cluster.view.words import count_in_words, level_in_words

EMULATED = "EMULATED: processes play these devices; no figure here is one of real hardware"
FIGURES = ("measured", "expected", "of it", "latency")


def page(overview: Overview, cluster: ClusterSpec) -> Group:
    """Everything there is to say of `cluster`, whose overview is `overview`."""
    return Group(*_parts(overview, cluster))


def _parts(overview: Overview, cluster: ClusterSpec) -> Iterator[RenderableType]:
    if overview.origin == "emulated":
        yield Text(f" {EMULATED} ", style="bold reverse magenta")
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in overview.devices.items())
    yield Text.assemble((f"{overview.source}: ", "bold"), f"{_totals(overview)}{': ' if kinds else ''}{kinds}")
    if overview.pools or overview.lost:
        yield _nodes(overview)
    if overview.islands:
        yield Text.assemble(("islands  ", "bold"), "; ".join(_islands(overview)))
    if overview.num_nodes > 1:
        yield _network(cluster)
    if overview.calibration is not None:
        yield _measured(overview.calibration)
    for remark in overview.remarks:
        yield Text(f"remark: {remark}", style="yellow")


def _totals(overview: Overview) -> str:
    lost = f" and {len(overview.lost)} LOST" if overview.lost else ""
    return f"{count_in_words(overview.num_nodes, 'node')}{lost}, {count_in_words(overview.num_devices, 'device')}"


def _nodes(overview: Overview) -> Table:
    """A row for each pool and each lost node."""
    mark = " (EMULATED)" if overview.origin == "emulated" else ""
    columns = {
        "machine": [pool.machine for pool in overview.pools] + ["LOST" for _ in overview.lost],
        "nodes": [_names(pool) for pool in overview.pools] + [node.name for node in overview.lost],
        "devices of each": [_devices(pool) for pool in overview.pools] + [node.why for node in overview.lost],
        "links between them": [pool.links for pool in overview.pools] + ["" for _ in overview.lost],
        "NICs": [pool.nics for pool in overview.pools] + ["" for _ in overview.lost],
        "where": [_where(pool) for pool in overview.pools] + ["" for _ in overview.lost],
    }
    return _table(columns, title=f"Nodes{mark}", num_plain=len(overview.pools))


def _names(pool: PoolRow) -> str:
    return pool.nodes[0] if len(pool.nodes) == 1 else f"{len(pool.nodes):,}: {some(pool.nodes)}"


def _devices(pool: PoolRow) -> str:
    if pool.speeds is None:
        return pool.devices
    return f"{pool.devices}, measured speed {pool.speeds[0]:.2f} to {pool.speeds[1]:.2f}"


def _where(pool: PoolRow) -> str:
    return "; ".join(
        domain_name(level, domains[0]) if len(domains) == 1 else f"{len(domains)} {level}s: {some(domains)}"
        for level, domains in pool.domains.items()
    )


def _islands(overview: Overview) -> Iterator[str]:
    for island in overview.islands:
        if island.size == 1:
            yield f"{island.count:,} single {island.device}"
        else:
            yield f"{count_in_words(island.count, 'group')} of {island.size} x {island.device} over {island.link}"


def _network(cluster: ClusterSpec) -> Tree:
    levels = {level.name: level_in_words(level) for level in cluster.fabric.levels} if cluster.fabric else {}
    root = fabric_tree(cluster, pools(cluster))
    words = f"{root.level}: {levels[root.level]}" if root.level else "nothing tells what joins the nodes"
    if cluster.fabric is not None and cluster.fabric.rails:
        words += ", with rails: NIC i of every node hangs on switch i of the innermost level"
    tree = Tree(Text(words), guide_style="dim")
    _grow(tree, root, levels, named=True)
    return tree


def _grow(tree: Tree, domain: Domain, levels: Mapping[str, str], *, named: bool) -> None:
    """Hang the branches of `domain` on `tree`; names are told only where nothing is folded."""
    for branch in domain.branches:
        if isinstance(branch.of, Domain):
            below = tree.add(Text(f"{_domains(branch, branch.of.level, named=named)}: {levels[branch.of.level]}"))
            _grow(below, branch.of, levels, named=named and branch.count == 1)
        else:
            tree.add(Text(f"{branch.count:,} x {branch.of.machine}"))


def _domains(branch: Branch, level: str, *, named: bool) -> str:
    if branch.count == 1 and named:
        return domain_name(level, branch.names[0])
    names = f" ({some(branch.names)})" if named else ""
    return f"{branch.count} x {level}{names}"


def _measured(calibration: Calibration) -> Table:
    mark = " on EMULATED devices" if calibration.emulated else ""
    versions = ", ".join(f"{name} {version}" for name, version in calibration.versions.items())
    rows = calibration.comparisons
    columns = {
        "of": [one.subject for one in rows],
        "figure": [one.figure.replace("_", " ") for one in rows],
        "measured": [_rate(one.measured, one.unit) for one in rows],
        "expected": ["" if one.expected is None else _rate(one.expected, one.unit) for one in rows],
        "of it": ["" if one.expected is None else f"{one.measured / one.expected:.0%}" for one in rows],
        "latency": ["" if one.latency_s is None else f"{one.latency_s * 1e6:.1f} us" for one in rows],
    }
    table = _table(columns, title=f"Measured {calibration.date}{mark}", num_plain=len(rows))
    table.caption = versions or None
    return table


def _table(columns: dict[str, list[str]], *, title: str, num_plain: int) -> Table:
    """A table without the columns that nobody has anything to say in; rows after the first `num_plain` are marked."""
    said = {header: cells for header, cells in columns.items() if any(cells)}
    table = Table(title=title, box=SIMPLE_HEAD)
    for header in said:
        table.add_column(header, overflow="fold", justify="right" if header in FIGURES else "left")
    for place, cells in enumerate(zip(*said.values(), strict=True)):
        table.add_row(*map(Text, cells), style="bold red" if place >= num_plain else None)
    return table


def _rate(value: float, unit: str) -> str:
    """`312 TFLOP/s`, `1.5 GB/s`."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor and not (unit == "B/s" and factor > 1e9):
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"
