"""What there is: nodes, their devices, and the network between them. Pure: no Ray, no torch.

A `ClusterSpec` is the same whether it was discovered on live nodes, read from a file, or emulated; `origin` says which,
so that an emulated figure is never taken for a real one. Written down, equal machines and equal nodes are folded:
`layout` has the form, which is the same in YAML, in JSON and in the record of a run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_serializer, model_validator

from heliostat.cluster.catalogue import Catalogue, DeviceType, builtin
from heliostat.cluster.fabric import Fabric
from heliostat.cluster.layout import fold, unfold
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import Measured
from heliostat.values import Frozen, digest

GIB = 1 << 30
Origin = Literal["live", "file", "emulated"]


class DeviceId(NamedTuple):
    """One device of the cluster."""

    node_id: str
    device_index: int


class Node(Frozen):
    """One machine with a name: where it is, and what is known of this very one."""

    node_id: str = Field(min_length=1)
    """Ray's id of a live node, the name of one in a file."""
    machine: Machine
    hostname: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    """They place it in the fabric, among other things."""
    uuids: tuple[str, ...] = ()
    """Of its devices in their order; empty when unknown."""
    speeds: tuple[float, ...] = ()
    """Of its devices in their order; empty until measured."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for what, values in (("uuids", self.uuids), ("speeds", self.speeds)):
            if values and len(values) != len(self.machine.devices):
                raise ValueError(f"{len(values)} {what} for {len(self.machine.devices)} devices")
        return self

    @classmethod
    def of(cls, node_id: str, devices: Iterable[Device], **fields: Any) -> "Node":
        """A node with a machine of its own: `devices` with what is known of each, in index order."""
        known = tuple(devices)
        machine = Machine(
            name=fields.pop("name", node_id),
            devices=tuple(device.model_copy(update={"uuid": "", "speed": 1.0}) for device in known),
        )
        uuids = tuple(device.uuid for device in known)
        speeds = tuple(device.speed for device in known)
        return cls(
            node_id=node_id,
            machine=machine,
            uuids=uuids if any(uuids) else (),
            speeds=speeds if set(speeds) - {1.0} else (),
            **fields,
        )

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        """Its devices, with what is known of each."""
        devices = self.machine.devices
        if self.uuids:
            devices = tuple(d.model_copy(update={"uuid": u}) for d, u in zip(devices, self.uuids, strict=True))
        if self.speeds:
            devices = tuple(d.model_copy(update={"speed": s}) for d, s in zip(devices, self.speeds, strict=True))
        return devices

    def with_speeds(self, speeds: Mapping[tuple[str, int], float]) -> "Node":
        """This node with the speeds found under its id or else its hostname, and the device's index."""
        found = tuple(
            speeds.get((self.node_id, device.index), speeds.get((self.hostname, device.index), 1.0))
            for device in self.machine.devices
        )
        return self.model_copy(update={"speeds": () if set(found) <= {1.0} else found})

    def part(self, indices: Iterable[int]) -> "Node":
        """This node with the devices `indices` alone."""
        wanted = set(indices)
        kept = [place for place, device in enumerate(self.machine.devices) if device.index in wanted]
        if len(kept) == len(self.machine.devices):
            return self
        return self.model_copy(
            update={
                "machine": self.machine.part(wanted),
                "uuids": tuple(self.uuids[place] for place in kept) if self.uuids else (),
                "speeds": tuple(self.speeds[place] for place in kept) if self.speeds else (),
            }
        )


class ClusterSpec(Frozen):
    """All nodes, the fabric between them, and what was measured on them."""

    nodes: tuple[Node, ...]
    origin: Origin
    fabric: Fabric | None = None
    """None where nobody told what joins the nodes."""
    types: dict[str, DeviceType] = Field(default_factory=dict)
    """Device types beside those of the catalogue."""
    measured: Measured | None = None

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        return unfold(value) if isinstance(value, Mapping) and "machines" in value else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _refuse_twins("node", (node.node_id for node in self.nodes))
        _refuse_twins("device uuid", (uuid for node in self.nodes for uuid in node.uuids if uuid))
        self._refuse_contradicting_domains()
        return self

    @model_serializer(mode="plain")
    def _fold(self) -> dict[str, Any]:
        return fold(self.nodes, origin=self.origin, fabric=self.fabric, types=self.types, measured=self.measured)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The built-in catalogue with this cluster's own types."""
        return Catalogue(types={**builtin().types, **self.types})

    @cached_property
    def num_devices(self) -> int:
        """Devices over all nodes."""
        return sum(len(node.machine.devices) for node in self.nodes)

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """The nodes by their id."""
        return {node.node_id: node for node in self.nodes}

    @cached_property
    def device_ids(self) -> tuple[DeviceId, ...]:
        """Every device, node by node."""
        return tuple(DeviceId(node.node_id, device.index) for node in self.nodes for device in node.machine.devices)

    def device(self, where: DeviceId) -> Device:
        """The device at `where`."""
        node = self.by_id[where.node_id]
        return next(device for device in node.devices if device.index == where.device_index)

    def count_by_kind(self) -> dict[str, int]:
        """How many devices there are of each kind."""
        return dict(Counter(device.kind for node in self.nodes for device in node.devices))

    def with_speeds_of(self, measured: "ClusterSpec") -> "ClusterSpec":
        """This cluster with the speeds that `measured` knows, matched by node, or by host after Ray was restarted.

        A device that was never measured keeps the speed 1.0.
        """
        speeds = {
            (key, device.index): device.speed
            for node in measured.nodes
            for device in node.devices
            for key in (node.hostname, node.node_id)
        }
        return self.model_copy(update={"nodes": tuple(node.with_speeds(speeds) for node in self.nodes)})

    def shape(self) -> str:
        """A digest of what the cluster is made of, blind to node ids and to what was measured."""
        nodes = sorted(
            sorted((device.type, device.index, device.memory_bytes // GIB) for device in node.machine.devices)
            for node in self.nodes
        )
        return digest({"origin": self.origin, "nodes": nodes})

    def _refuse_contradicting_domains(self) -> None:
        """A rack that is in two zones is no tree."""
        names = [level.name for level in self.fabric.levels] if self.fabric else []
        for inner, outer in pairwise(names):
            above: dict[str, tuple[str, str]] = {}
            for node in self.nodes:
                here, there = node.labels.get(inner), node.labels.get(outer)
                if here is None or there is None:
                    continue
                before, first = above.setdefault(here, (there, node.node_id))
                if before != there:
                    raise ValueError(
                        f"{inner} '{here}' is in {outer} '{before}' (node {first}) "
                        f"and in {outer} '{there}' (node {node.node_id})"
                    )


def _refuse_twins(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {', '.join(repr(name) for name in twice[:5])} is there twice")
