"""How fast bytes go between the devices of one machine. Pure.

A figure is taken from the first that has one: a measurement, the machine's own `figures`, the catalogue. All are
effective, in one direction.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations

from heliostat.cluster.catalogue import DeviceType
from heliostat.cluster.links import (
    IN_SWITCH_EFFICIENCY,
    NETWORK_EFFICIENCY,
    PCIE_LATENCY_S,
    Link,
    is_peer,
    pcie_bytes_per_s,
    peer_link,
)
from heliostat.cluster.machine import Machine
from heliostat.cluster.measured import Measured
from heliostat.cluster.min_cut import min_cut
from heliostat.cluster.topology import Nic


class Wiring:
    """The links of one machine, with figures."""

    def __init__(self, machine: Machine, types: Mapping[str, DeviceType], measured: Measured | None = None) -> None:
        self.machine = machine
        self._types = types
        self._measured = measured

    @cached_property
    def links(self) -> dict[tuple[int, int], Link]:
        """What two devices get between them, by their indices in either order; pairs that nobody told of are absent."""
        found = {
            (a.index, b.index): link
            for a, b in combinations(self.machine.devices, 2)
            if (link := self._link(a.index, b.index)) is not None
        }
        return found | {(b, a): link for (a, b), link in found.items()}

    @cached_property
    def nics(self) -> dict[int, tuple[Nic, ...]]:
        """The NICs of each device: its closest ones, all of them where the source does not tell which are close."""
        topology = self.machine.topology
        if topology is None:
            return {device.index: () for device in self.machine.devices}
        by_name = {nic.name: nic for nic in topology.nics}
        return {
            device.index: tuple(by_name[name] for name in topology.nearest_nics(self.machine.end(device.index)))
            or topology.nics
            for device in self.machine.devices
        }

    def collective_bytes_per_s(self, indices: Sequence[int]) -> float | None:
        """Bus bandwidth of a collective among the devices `indices`; None where a link that it needs is not known.

        Either over direct links alone, as many rings or trees at once as the links carry: the smallest cut of their
        graph (Edmonds 1973; Blink, MLSys 2020, packs such trees). Or in one ring over the closest links of any kind,
        whose weakest link decides; classes of PCIe links nest, so a ring crosses each boundary once in each direction.
        """
        direct = min_cut(indices, self._direct_capacities(indices))
        ring = _weakest_of_tree(indices, self.links)
        return max((rate for rate in (direct, ring) if rate), default=None)

    def all_reduce_bytes_per_s(self, indices: Sequence[int]) -> float | None:
        """Bus bandwidth of an all-reduce: `collective_bytes_per_s`, or more where NVSwitches do the sums.

        A switch that reduces takes each byte once and gives it back once, which a ring does 2 (n - 1) / n times. As bus
        bandwidth it is that much more, less the switch's efficiency and (n - 1) / n; the last is there because it then
        agrees with reference/topology/allreduce_busbw_measured.csv within 6 % (benchmarks/ring_bandwidth.py).
        """
        ring = self.collective_bytes_per_s(indices)
        peer_links = [self._types[self.machine.by_index[index].type].peer_links for index in indices]
        efficiencies = [IN_SWITCH_EFFICIENCY.get(one.generation or 0, 0.0) if one else 0.0 for one in peer_links]
        if ring is None or not min(efficiencies) or not all(map(self._overbooked, indices)):
            return ring
        others = (len(indices) - 1) / len(indices)
        return max(ring, ring * min(efficiencies) * others * 2 * others)

    def egress_bytes_per_s(self, indices: Sequence[int]) -> float | None:
        """What the devices `indices` together send out of the node over their NICs; None where no speed is known."""
        nics = {nic.name: nic.bits_per_s for index in indices for nic in self.nics[index]}
        speeds = [bits * NETWORK_EFFICIENCY / 8 for bits in nics.values() if bits is not None]
        ports = [self._pcie_bytes_per_s(index) for index in indices]
        total = sum(speeds) if speeds else None
        known = [port for port in ports if port is not None]
        return min(total, sum(known)) if total is not None and len(known) == len(ports) else total

    def _link(self, a: int, b: int) -> Link | None:
        link = self.machine.link(a, b)
        one, other = (self.machine.by_index[index] for index in (a, b))
        if one.physical == other.physical:
            return self._within(one.type)
        code = "host" if link is None else str(link)
        types = {one.type, other.type}
        measured = self._measured.link(types, num_nodes=1, link=code) if self._measured else None
        if measured is not None or link is None:
            return measured
        return self.machine.figures.get(str(link)) or peer_link(link, self._types[one.type], self._types[other.type])

    def _within(self, name: str) -> Link | None:
        """Between instances of one GPU: through the host, as MIG has no peer access."""
        pcie = self._types[name].pcie
        return Link(latency_s=PCIE_LATENCY_S, bytes_per_s=pcie_bytes_per_s(pcie) / 2) if pcie else None

    def _pcie_bytes_per_s(self, index: int) -> float | None:
        pcie = self._types[self.machine.by_index[index].type].pcie
        return pcie_bytes_per_s(pcie) if pcie else None

    def _direct_capacities(self, indices: Sequence[int]) -> dict[tuple[int, int], float]:
        """Capacities of the direct links; where bundles share the links of a device, each pair's part of them."""
        peers = {pair: link.bytes_per_s for pair, link in self.links.items() if self._is_peer(*pair)}
        shared = {index: self._overbooked(index) for index in indices}
        capacities = {}
        for a, b in combinations(indices, 2):
            if (a, b) in peers:
                parts = len(indices) - 1 if shared[a] or shared[b] else 1
                capacities[a, b] = peers[a, b] / parts
        return capacities

    def _is_peer(self, a: int, b: int) -> bool:
        link = self.machine.link(a, b)
        return link is not None and is_peer(link)

    def _overbooked(self, index: int) -> bool:
        """Whether the device has fewer links than its bundles add up to: then they pass through switches."""
        peer_links = self._types[self.machine.by_index[index].type].peer_links
        others = {device.physical for device in self.machine.devices} - {self.machine.by_index[index].physical}
        first = {device.physical: device.index for device in reversed(self.machine.devices)}
        bundles = (self.machine.link(index, first[other]) for other in others)
        total = sum(link.num_links or 1 for link in bundles if link is not None and is_peer(link))
        return peer_links is not None and total > peer_links.num_links


def _weakest_of_tree(indices: Sequence[int], links: Mapping[tuple[int, int], Link]) -> float | None:
    """The weakest link of the tree over `indices` whose weakest link is strongest; None if they are not connected."""
    joined, left, weakest = {indices[0]}, set(indices[1:]), float("inf")
    while left:
        rates = {
            b: max((links[a, b].bytes_per_s for a in joined if (a, b) in links), default=0.0) for b in sorted(left)
        }
        nearest = max(rates, key=lambda b: rates[b])
        if not rates[nearest]:
            return None
        weakest = min(weakest, rates[nearest])
        joined.add(nearest)
        left.remove(nearest)
    return weakest
