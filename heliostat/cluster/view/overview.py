"""What there is to say of a cluster, in the order of a page: pools of equal nodes, islands, levels, figures. Pure.

The table and the JSON of `heliostat cluster show` are both made of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec, Origin
from heliostat.cluster.survey import LostNode, Survey
from heliostat.cluster.view.comparison import Comparison, comparisons
from heliostat.cluster.view.pools import Pool, node_names, pools
from heliostat.cluster.view.words import devices_in_words, links_in_words, nics_in_words, product
from heliostat.values import Frozen

SHOWN_NAMES = 3


class PoolRow(Frozen):
    """Nodes of one machine."""

    machine: str
    nodes: tuple[str, ...]
    """What to call them."""
    devices: str
    """Of each node, in words, as the next two."""
    links: str
    nics: str
    domains: dict[str, tuple[str, ...]]
    """Level of the fabric -> its domains that the nodes are in."""
    speeds: tuple[float, float] | None = None
    """The slowest and the fastest device, measured; 1.0 is the fastest of a type."""


class IslandRow(Frozen):
    """Islands of one kind: devices of a node that reach one another over links of one class, their best."""

    device: str
    size: int
    link: str
    count: int


class LevelRow(Frozen):
    """A level of the fabric."""

    level: str
    num_domains: int
    """1 where no node has a label for it: then all are in one."""
    bytes_per_s: float | None
    """What one node gets across it, each way."""
    latency_s: float


class Calibration(Frozen):
    """What was measured."""

    date: str
    versions: dict[str, str]
    emulated: bool
    comparisons: tuple[Comparison, ...]


class Overview(Frozen):
    """The whole page."""

    source: str
    """Where the cluster was looked at: a file, a Ray cluster, this machine."""
    origin: Origin
    num_nodes: int
    num_devices: int
    devices: dict[str, int]
    """By type and MIG profile."""
    pools: tuple[PoolRow, ...]
    islands: tuple[IslandRow, ...]
    levels: tuple[LevelRow, ...]
    rails: bool
    calibration: Calibration | None
    lost: tuple[LostNode, ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, survey: Survey, source: str) -> "Overview":
        """The overview of what `survey` found at `source`."""
        cluster = survey.cluster
        names = node_names(cluster)
        return cls(
            source=source,
            origin=cluster.origin,
            num_nodes=len(cluster.nodes),
            num_devices=cluster.num_devices,
            devices=count_by_product(cluster),
            pools=tuple(_pool(pool, names, cluster) for pool in pools(cluster)),
            islands=tuple(_islands(cluster)),
            levels=tuple(_levels(cluster)),
            rails=cluster.fabric is not None and cluster.fabric.rails,
            calibration=_calibration(cluster),
            lost=survey.lost,
            remarks=survey.remarks,
        )


def count_by_product(cluster: ClusterSpec) -> dict[str, int]:
    """How many devices there are of each type and MIG profile."""
    return dict(Counter(product(device) for node in cluster.nodes for device in node.machine.devices))


def some(names: Sequence[str]) -> str:
    """The names, of many only the first and the last."""
    if len(names) <= SHOWN_NAMES:
        return ", ".join(names)
    return f"{names[0]} .. {names[-1]}"


def _pool(pool: Pool, names: dict[str, str], cluster: ClusterSpec) -> PoolRow:
    levels = [level.name for level in cluster.fabric.levels] if cluster.fabric else []
    domains = {level: _distinct(node.labels[level] for node in pool.nodes if level in node.labels) for level in levels}
    speeds = [speed for node in pool.nodes for speed in node.speeds]
    return PoolRow(
        machine=pool.name,
        nodes=tuple(names[node.node_id] for node in pool.nodes),
        devices=devices_in_words(pool.machine.devices),
        links=links_in_words(pool.machine),
        nics=nics_in_words(pool.machine),
        domains={level: inside for level, inside in domains.items() if inside},
        speeds=(min(speeds), max(speeds)) if speeds else None,
    )


def _islands(cluster: ClusterSpec) -> Iterator[IslandRow]:
    kinds = {node.node_id: {device.index: device.kind for device in node.devices} for node in cluster.nodes}
    found = Counter(
        (kinds[island.node_id][island.devices[0]], len(island.devices), island.link)
        for island in Network(cluster).islands()
    )
    for (device, size, link), count in found.items():
        yield IslandRow(device=device, size=size, link=link, count=count)


def _levels(cluster: ClusterSpec) -> Iterator[LevelRow]:
    for level in cluster.fabric.levels if cluster.fabric else ():
        domains = _distinct(node.labels[level.name] for node in cluster.nodes if level.name in node.labels)
        yield LevelRow(
            level=level.name,
            num_domains=len(domains) or 1,
            bytes_per_s=level.bytes_per_s,
            latency_s=level.latency_s,
        )


def _calibration(cluster: ClusterSpec) -> Calibration | None:
    measured = cluster.measured
    if measured is None:
        return None
    return Calibration(
        date=measured.date,
        versions=measured.versions,
        emulated=measured.emulated,
        comparisons=comparisons(cluster),
    )


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
