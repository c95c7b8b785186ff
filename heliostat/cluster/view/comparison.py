"""What was measured on a cluster next to what the catalogue promises. Pure."""

from collections.abc import Iterator

from heliostat.cluster.catalogue import Catalogue
from heliostat.cluster.links import pcie_bytes_per_s, peer_link
from heliostat.cluster.measured import Curve, DeviceRates, GroupShape
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.topology import LinkClass
from heliostat.values import Frozen


class Comparison(Frozen):
    """One figure from both sides."""

    subject: str
    """A device kind, or a group of ranks."""
    figure: str
    unit: str
    measured: float
    expected: float | None
    """From the catalogue, or the fabric's level; None where they do not tell."""
    latency_s: float | None = None
    """Measured, of a collective."""


def comparisons(cluster: ClusterSpec) -> tuple[Comparison, ...]:
    """Every measured figure of `cluster`; empty where nothing was measured."""
    if cluster.measured is None:
        return ()
    rates = [
        one for kind, found in cluster.measured.rates.items() for one in _of_device(kind, found, cluster.catalogue)
    ]
    return (*rates, *(_of_curve(curve, cluster) for curve in cluster.measured.curves))


def _of_device(kind: str, rates: DeviceRates, catalogue: Catalogue) -> Iterator[Comparison]:
    # an instance of a GPU has a share of it, which no table tells exactly
    known = None if "/" in kind else catalogue.types.get(kind.partition("@")[0])
    for dtype in dict.fromkeys(one.dtype for one in rates.matmul):
        best = max((one for one in rates.matmul if one.dtype == dtype), key=lambda one: one.flops_per_s)
        yield Comparison(
            subject=kind,
            figure=f"{dtype} matmul, n = {best.size}",
            unit="FLOP/s",
            measured=best.flops_per_s,
            expected=known.flops(dtype) if known else None,
        )
    bus = pcie_bytes_per_s(known.pcie) if known and known.pcie else None
    for figure, found, expected in (
        ("memory, read and written", rates.memory_bytes_per_s, known.memory_bytes_per_s if known else None),
        ("host to device", rates.to_device_bytes_per_s, bus),
        ("device to host", rates.to_host_bytes_per_s, bus),
    ):
        if found is not None:
            yield Comparison(subject=kind, figure=figure, unit="B/s", measured=found, expected=expected)


def _of_curve(curve: Curve, cluster: ClusterSpec) -> Comparison:
    return Comparison(
        subject=str(curve.group),
        figure=curve.operation,
        unit="B/s",
        measured=curve.line.bytes_per_s,
        expected=_link_bytes_per_s(curve.group, cluster) if curve.operation == "send_recv" else None,
        latency_s=curve.line.latency_s,
    )


def _link_bytes_per_s(group: GroupShape, cluster: ClusterSpec) -> float | None:
    """What one message should get: of the link inside a node, else of the level of the fabric."""
    if group.num_nodes > 1:
        levels = cluster.fabric.levels if cluster.fabric else ()
        return next((level.bytes_per_s for level in levels if level.name == group.link), None)
    ends = [cluster.catalogue.types.get(name) for name in group.device_type.split("+")]
    first, last = ends[0], ends[-1]
    if first is None or last is None or group.link == "host":
        return None
    found = peer_link(LinkClass.parse(group.link), first, last)
    return found.bytes_per_s if found else None
