"""What links a group of devices has, while the other groups of the plan use theirs. Pure.

Inside a node: the bus bandwidth of the slowest node's ring. Between nodes: what whole nodes exchange, of which a group
with k of the n working devices of a node gets k/n. Where a group of that size was measured on this cluster, its curves
go before both.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from heliostat.cluster.measured import Curve
from heliostat.cluster.network import Network
from heliostat.cluster.spec import DeviceId, Node
from heliostat.errors import UserError
from heliostat.placement.collective_time import GroupLinks
from heliostat.placement.node_order import domains

ALONE = GroupLinks()


class Part(NamedTuple):
    """Devices of one kind in one node."""

    node: int
    """Its place in the order of nodes."""
    indices: tuple[int, ...]


class LinkFinder:
    """Asked often: remembers what equal machines and equal sets of nodes have."""

    def __init__(self, network: Network, nodes: Sequence[Node]) -> None:
        self.network, self.nodes = network, nodes
        self._inside: dict[tuple[int, tuple[int, ...]], tuple[float, float]] = {}
        self._across: dict[tuple[object, ...], float] = {}

    def find(self, parts: Iterable[Part], used: Counter[int]) -> GroupLinks:
        """The links of the devices of `parts`, of `used` devices at work on each node.

        Raises:
            UserError: nothing tells how they are joined.
        """
        by_node: dict[int, tuple[int, ...]] = {}
        for part in parts:
            by_node[part.node] = by_node.get(part.node, ()) + part.indices
        size = sum(len(indices) for indices in by_node.values())
        if size < 2:
            return ALONE
        fields: dict[str, Any] = {"curves": self._measured(by_node)} if self._is_measured else {}
        crowded = {
            (id(self.nodes[place].machine), indices): (place, indices)
            for place, indices in by_node.items()
            if len(indices) > 1
        }
        if crowded:
            inside = [self._inside_of(*one) for one in crowded.values()]
            fields["inside_bytes_per_s"] = min(rate for rate, _ in inside)
            fields["inside_latency_s"] = max(latency_s for _, latency_s in inside)
        if len(by_node) > 1:
            places = list(by_node)
            share = min(len(indices) / max(used[place], len(indices)) for place, indices in by_node.items())
            fields["across_bytes_per_s"] = self._across_of(places) * share
            a, b = (DeviceId(self.nodes[at].node_id, by_node[at][0]) for at in (places[0], places[-1]))
            fields["across_latency_s"] = self.network.link(a, b).latency_s
        return GroupLinks.model_construct(size=size, num_nodes=len(by_node), **fields)

    def _inside_of(self, place: int, indices: tuple[int, ...]) -> tuple[float, float]:
        key = (id(self.nodes[place].machine), indices)
        if key not in self._inside:
            devices = [DeviceId(self.nodes[place].node_id, index) for index in indices]
            try:
                rate = self.network.collective_bytes_per_s(devices)
                self._inside[key] = (rate, self.network.link(devices[0], devices[1]).latency_s)
            except UserError:
                measured = self._like_others()
                if measured is None:
                    raise
                self._inside[key] = measured
        return self._inside[key]

    @property
    def _is_measured(self) -> bool:
        measured = self.network.cluster.measured
        return measured is not None and bool(measured.curves)

    def _measured(self, by_node: Mapping[int, Sequence[int]]) -> tuple[Curve, ...]:
        measured = self.network.cluster.measured
        assert measured is not None
        types = {self.nodes[place].machine.by_index[index].type for place, own in by_node.items() for index in own}
        num_ranks = sum(len(indices) for indices in by_node.values())
        return measured.of_group(types, num_ranks=num_ranks, num_nodes=len(by_node))

    def _like_others(self) -> tuple[float, float] | None:
        """Bus bandwidth and latency of the slowest all-reduce that was measured inside a node."""
        measured = self.network.cluster.measured
        found = [
            (2 * (one.group.num_ranks - 1) / one.group.num_ranks * one.line.bytes_per_s, one.line.latency_s)
            for one in (measured.curves if measured else ())
            if one.operation == "all_reduce" and one.group.num_nodes == 1
        ]
        return min(found, default=None)

    def _across_of(self, places: Sequence[int]) -> float:
        """What whole nodes exchange; two nodes of each sort in each domain stand for all of them."""
        sorts: dict[int, list[int]] = {}
        for place in places:
            sorts.setdefault(self._sorts[place], []).append(place)
        key = tuple(sorted((sort, min(len(members), 2)) for sort, members in sorts.items()))
        if key not in self._across:
            chosen = [place for members in sorts.values() for place in members[:2]]
            self._across[key] = self.network.collective_bytes_per_s(
                [
                    DeviceId(self.nodes[place].node_id, device.index)
                    for place in chosen
                    for device in self.nodes[place].devices
                ]
            )
        return self._across[key]

    @cached_property
    def _sorts(self) -> list[int]:
        """Of each node a number that equal machines in one domain share."""
        numbers: dict[tuple[object, ...], int] = {}
        cluster = self.network.cluster
        return [numbers.setdefault((id(node.machine), *domains(cluster, node)), len(numbers)) for node in self.nodes]
