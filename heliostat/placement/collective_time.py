"""From collectives to seconds: ring and tree over one or two levels of links. Pure.

A group has `size` ranks, spread evenly over `num_nodes` nodes. Ring (Patarasuk & Yuan 2009): all-reduce sends
2 (n-1)/n of the bytes past the narrowest place of the ring in 2 (n-1) steps, gather and scatter half of both. Tree
between nodes (NCCL 2.4, double binary trees): the same bytes in 2 log2(nodes) steps. The faster of both. Each call also
costs `BASE_S` on the devices. All-to-all sends (n-1)/n of the bytes, of which what leaves the node over its NICs.
"""

from math import ceil, log2
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from heliostat.cluster.measured import Curve
from heliostat.values import Frozen

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"]
BASE_S = 35e-6
"""Starting one collective and meeting in it: vTrain's all-reduce of 1 MiB on 2 A100 takes 44 us, of which 5 us for the
bytes and 7 us for two hops (reference/planner/nccl_allreduce_lut.csv)."""
BUS_EFFICIENCY = 0.95
"""Of what `links` counts: 229 of 240 GB/s for 1 GiB on 8 A100 (same file)."""


class GroupLinks(Frozen):
    """Ranks that communicate, and the links between them as one group gets them while its neighbours use theirs."""

    size: PositiveInt = 1
    """Ranks."""
    num_nodes: PositiveInt = 1
    inside_bytes_per_s: PositiveFloat = 1e15
    """Bus bandwidth among the group's ranks of one node."""
    across_bytes_per_s: PositiveFloat = 1e15
    """What the group's ranks of one node send to other nodes together."""
    inside_latency_s: NonNegativeFloat = 0.0
    across_latency_s: NonNegativeFloat = 0.0
    curves: tuple[Curve, ...] = ()
    """Measured in such a group: they go before the formulas."""

    @property
    def per_node(self) -> int:
        """Ranks on the fullest node."""
        return ceil(self.size / self.num_nodes)


def collective_s(operation: Collective, num_bytes: float, group: GroupLinks) -> float:
    """Seconds of one collective on `num_bytes`: the whole tensor, as in `cluster.measured.Curve`."""
    size = group.size
    if size == 1 or num_bytes <= 0:
        return 0.0
    for curve in group.curves:
        if curve.operation == operation:
            return curve.time_s(num_bytes)
    if operation == "send_recv":
        across = group.num_nodes > 1
        rate = group.across_bytes_per_s if across else group.inside_bytes_per_s
        return BASE_S / 2 + (group.across_latency_s if across else group.inside_latency_s) + num_bytes / rate
    if operation == "all_to_all":
        return _all_to_all_s(num_bytes, group)
    rounds = 2 if operation == "all_reduce" else 1
    narrowest = group.inside_bytes_per_s if group.per_node > 1 else group.across_bytes_per_s
    if group.num_nodes > 1:
        narrowest = min(narrowest, group.across_bytes_per_s)
    bytes_s = rounds * num_bytes * (size - 1) / size / (narrowest * BUS_EFFICIENCY)
    return BASE_S + bytes_s + rounds * min(_ring_latency_s(group), _tree_latency_s(group))


def _ring_latency_s(group: GroupLinks) -> float:
    crossings = group.num_nodes if group.num_nodes > 1 else 0
    return (group.size - 1 - crossings) * group.inside_latency_s + crossings * group.across_latency_s


def _tree_latency_s(group: GroupLinks) -> float:
    return (group.per_node - 1) * group.inside_latency_s + ceil(log2(group.num_nodes)) * group.across_latency_s


def _all_to_all_s(num_bytes: float, group: GroupLinks) -> float:
    size, inside = group.size, group.per_node
    latency_s = (inside - 1) * group.inside_latency_s + (group.num_nodes - 1) * group.across_latency_s
    outside_s = num_bytes * inside * (size - inside) / size / group.across_bytes_per_s
    inside_s = num_bytes * (inside - 1) / size / group.inside_bytes_per_s
    return BASE_S + latency_s + max(outside_s, inside_s)
