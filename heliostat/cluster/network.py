"""How fast bytes go between devices of a cluster: any two, or a set that works together. Pure.

Inside a node `wiring` tells. Between nodes it is what was measured, else the least of their NICs and of the level of
the fabric where they meet.
"""

from collections.abc import Iterator, Sequence

from heliostat.cluster.fabric import FabricLevel
from heliostat.cluster.links import NETWORK_EFFICIENCY, NETWORK_LATENCY_S, Link
from heliostat.cluster.spec import ClusterSpec, DeviceId, Node
from heliostat.cluster.topology import Nic
from heliostat.cluster.wiring import Wiring
from heliostat.errors import UserError
from heliostat.values import Frozen


class IslandOf(Frozen):
    """Devices of one node and one kind that reach one another over links of one class, their best."""

    node_id: str
    devices: tuple[int, ...]
    link: str
    """The class; empty for a device on its own."""


class Network:
    """The links of a whole cluster. Made once, asked often."""

    def __init__(self, cluster: ClusterSpec) -> None:
        self.cluster = cluster
        names = {device.type for node in cluster.nodes for device in node.machine.devices}
        types = {name: cluster.catalogue.find(name) for name in names}
        wirings = {
            machine: Wiring(machine, types, cluster.measured) for machine in {node.machine for node in cluster.nodes}
        }
        self._wirings = {node.node_id: wirings[node.machine] for node in cluster.nodes}
        self._levels = cluster.fabric.levels if cluster.fabric else ()
        self._rails = cluster.fabric is not None and cluster.fabric.rails
        self._domains = {node.node_id: self._domains_of(node) for node in cluster.nodes}

    def wiring(self, node_id: str) -> Wiring:
        """The links inside a node."""
        return self._wirings[node_id]

    def link(self, a: DeviceId, b: DeviceId) -> Link:
        """What the devices `a` and `b` get between them when nobody else is talking.

        Raises:
            UserError: nothing tells how they are joined.
        """
        if a.node_id == b.node_id:
            found = self._wirings[a.node_id].links.get((a.device_index, b.device_index))
        else:
            found = self._between(a, b)
        if found is None:
            raise self._unknown(a, b)
        return found

    def meeting_level(self, a: str, b: str) -> int:
        """The place of the innermost level that the nodes `a` and `b` share; 0 is the innermost."""
        ours, theirs = self._domains[a], self._domains[b]
        return next((place for place, domain in enumerate(ours) if domain == theirs[place]), len(ours) - 1)

    def collective_bytes_per_s(self, devices: Sequence[DeviceId]) -> float:
        """Bus bandwidth of a collective among `devices`: what its rings carry together past their narrowest place.

        That is inside some node, at the NICs of some node, or at a level of the fabric which the rings cross.

        Raises:
            UserError: nothing tells how they are joined.
        """
        assert len(devices) > 1, "a collective needs two devices"
        by_node: dict[str, list[int]] = {}
        for device in devices:
            by_node.setdefault(device.node_id, []).append(device.device_index)
        rates: list[float | None] = [
            self._wirings[node_id].collective_bytes_per_s(indices)
            for node_id, indices in by_node.items()
            if len(indices) > 1
        ]
        if any(rate is None for rate in rates):
            raise self._unknown(devices[0], devices[1])
        if len(by_node) > 1:
            rates += self._outside(by_node, devices)
        return min(rate for rate in rates if rate is not None)

    def all_reduce_bytes_per_s(self, devices: Sequence[DeviceId]) -> float:
        """Bus bandwidth of an all-reduce among `devices`: more than of other collectives where switches do the sums.

        Raises:
            UserError: nothing tells how they are joined.
        """
        rate = self.collective_bytes_per_s(devices)
        if len({device.node_id for device in devices}) > 1:
            return rate
        wiring = self._wirings[devices[0].node_id]
        return wiring.all_reduce_bytes_per_s([device.device_index for device in devices]) or rate

    def islands(self) -> tuple[IslandOf, ...]:
        """Every device in exactly one island, node by node."""
        return tuple(island for node in self.cluster.nodes for island in _islands(node))

    def _outside(self, by_node: dict[str, list[int]], devices: Sequence[DeviceId]) -> Iterator[float]:
        nodes = list(by_node)
        place = max(self.meeting_level(nodes[0], other) for other in nodes[1:])
        crossed = [self._levels[at].bytes_per_s for at in self._crossed(nodes, place)]
        egress = [self._wirings[node_id].egress_bytes_per_s(indices) for node_id, indices in by_node.items()]
        known = [rate for rate in (*crossed, *egress) if rate is not None]
        if not known:
            raise self._unknown(devices[0], devices[-1])
        yield from known

    def _crossed(self, nodes: Sequence[str], outermost: int) -> range:
        """The levels on the way of a ring through `nodes`: from where the closest of them meet to where all do."""
        innermost = outermost
        seen: list[set[str]] = [set() for _ in range(outermost + 1)]
        for node in nodes:
            for at in range(outermost):
                if self._domains[node][at] in seen[at]:
                    innermost = min(innermost, at)
                seen[at].add(self._domains[node][at])
        return range(innermost, outermost + 1) if self._levels else range(0)

    def _between(self, a: DeviceId, b: DeviceId) -> Link | None:
        place = self.meeting_level(a.node_id, b.node_id) if self._levels else None
        nics = [self._wirings[one.node_id].nics[one.device_index] for one in (a, b)]
        if place is not None and self._rails and place == 0 and not self._share_a_rail(a, b, nics):
            place = min(1, len(self._levels) - 1)
        level = None if place is None else self._levels[place]
        measured = self._measured_between(a, b, level)
        if measured is not None:
            return measured
        speeds = [max((nic.bits_per_s for nic in own if nic.bits_per_s), default=None) for own in nics]
        rates = [bits * NETWORK_EFFICIENCY / 8 for bits in speeds if bits is not None]
        if level is not None and level.bytes_per_s is not None:
            rates.append(level.bytes_per_s)
        return Link(latency_s=_latency_s(level), bytes_per_s=min(rates)) if rates else None

    def _measured_between(self, a: DeviceId, b: DeviceId, level: FabricLevel | None) -> Link | None:
        if self.cluster.measured is None:
            return None
        types = {self._wirings[one.node_id].machine.by_index[one.device_index].type for one in (a, b)}
        return self.cluster.measured.link(types, num_nodes=2, link="network" if level is None else level.name)

    def _share_a_rail(self, a: DeviceId, b: DeviceId, nics: Sequence[Sequence[Nic]]) -> bool:
        ours, theirs = ({self._order(one.node_id, nic) for nic in own} for one, own in zip((a, b), nics, strict=True))
        return bool(ours & theirs)

    def _order(self, node_id: str, nic: Nic) -> int:
        topology = self._wirings[node_id].machine.topology
        assert topology is not None
        return topology.nics.index(nic)

    def _domains_of(self, node: Node) -> tuple[str, ...]:
        """For each level the domain the node is in; one of its own where a label is missing, but for the outermost."""
        names = [level.name for level in self._levels]
        inner = tuple(node.labels.get(name, f"?{node.node_id}") for name in names[:-1])
        return (*inner, *(node.labels.get(name, "") for name in names[-1:]))

    def _unknown(self, a: DeviceId, b: DeviceId) -> UserError:
        where = "inside the node" if a.node_id == b.node_id else "between nodes"
        return UserError(
            f"nothing tells how fast the links {where} are",
            where=f"{a.node_id}/{a.device_index} - {b.node_id}/{b.device_index}",
            next_step=(
                "give the machine `links`, or measure them with `heliostat cluster calibrate`"
                if a.node_id == b.node_id
                else "give `nics` with their speed or `fabric` levels, or measure with `heliostat cluster calibrate`"
            ),
        )


def _latency_s(level: FabricLevel | None) -> float:
    return NETWORK_LATENCY_S if level is None else level.latency_s


def _islands(node: Node) -> Iterator[IslandOf]:
    topology = node.machine.topology
    groups = [(island.devices, str(island.link or "")) for island in topology.islands()] if topology else []
    ends = {device.index: node.machine.end(device.index) if topology else "" for device in node.devices}
    for names, link in groups or [(("",), "")]:
        kinds: dict[str, list[int]] = {}
        for device in node.devices:
            if ends[device.index] in names:
                kinds.setdefault(device.kind, []).append(device.index)
        for members in kinds.values():
            apart = topology is None or node.machine.by_index[members[0]].mig is not None  # MIG has no peer access
            for group in [[member] for member in members] if apart else [members]:
                yield IslandOf(node_id=node.node_id, devices=tuple(group), link=link if len(group) > 1 else "")
