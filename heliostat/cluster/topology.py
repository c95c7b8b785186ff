"""How the devices and NICs of one node are joined, as one source told it. Pure: no Ray, no torch.

Nothing here is inferred from a product name: a link the source does not tell is absent, and `missing` says in words
what an incomplete source lacks. Bandwidths are not part of it; they come from the catalogue or from a measurement.
"""

import re
from enum import StrEnum
from functools import cached_property
from itertools import combinations
from typing import Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from heliostat.errors import UserError
from heliostat.references import did_you_mean
from heliostat.values import Frozen


class LinkKind(StrEnum):
    """What the best path between two ends crosses, in the words of `nvidia-smi topo -m`; the closest kind first."""

    SELF = "X"
    NVLINK = "NV"
    """NVLinks bonded together, direct or through NVSwitches."""
    XGMI = "XGMI"
    """AMD Infinity Fabric links."""
    PIX = "PIX"
    """At most one PCIe bridge."""
    PXB = "PXB"
    """Several PCIe bridges, no host bridge."""
    PHB = "PHB"
    """A PCIe host bridge."""
    NODE = "NODE"
    """The interconnect between host bridges of one NUMA node."""
    SYS = "SYS"
    """The interconnect between NUMA nodes."""
    PCIE = "PCIE"
    """Some path over PCIe: rocm-smi does not say which of the five above."""


_CODE = re.compile(
    rf"(?P<kind>{'|'.join(kind for kind in LinkKind if kind is not LinkKind.SELF)})(?P<num_links>[1-9]\d*)?"
    r"(?: hops=(?P<hops>\d+))?(?: weight=(?P<weight>\d+))?"
)
_CLOSENESS = {kind: rank for rank, kind in enumerate(LinkKind)}


class LinkClass(Frozen):
    """The class of one link. Equal classes are equally good; text as the tools print it: `NV12`, `XGMI`, `PIX`."""

    kind: LinkKind
    num_links: PositiveInt | None = None
    """NVLinks or XGMI links bonded together; None where the source does not count them."""
    hops: PositiveInt | None = None
    """Hops as rocm-smi tells them."""
    weight: NonNegativeInt | None = None
    """Cost as rocm-smi tells it: the driver's own scale, lower is closer."""

    def __str__(self) -> str:
        return f"{self.kind}{self.num_links or ''}"

    @property
    def code(self) -> str:
        """The class in full, as `parse` reads it: `XGMI hops=1 weight=15`."""
        words = (f"{name}={value}" for name in ("hops", "weight") if (value := getattr(self, name)) is not None)
        return " ".join((str(self), *words))

    @classmethod
    def parse(cls, code: str) -> Self:
        """The class that `code` is the code of.

        Raises:
            ValueError: no class has such a code.
        """
        match = _CODE.fullmatch(code)
        if match is None or (match["num_links"] and match["kind"] not in {LinkKind.NVLINK, LinkKind.XGMI}):
            kinds = [str(kind) for kind in LinkKind if kind is not LinkKind.SELF]
            words = f"write NV or XGMI with the number of links behind it, or {', '.join(kinds[2:])}"
            raise ValueError(f"there is no class of link '{code}'{did_you_mean(code, kinds)}: {words}")
        return cls.model_validate({name: value for name, value in match.groupdict().items() if value is not None})

    @property
    def closeness(self) -> tuple[int, int, int, int]:
        """A key that sorts the closest link first."""
        return _CLOSENESS[self.kind], -(self.num_links or 0), self.hops or 0, self.weight or 0


SELF = LinkClass(kind=LinkKind.SELF)


class TopologyDevice(Frozen):
    """One GPU as the source lists it. None and `()` mean: not told, or told to be not applicable."""

    name: str
    """`GPU0`: how links name it."""
    index: NonNegativeInt
    """The index in NVML's or rocm-smi's order."""
    cpu_affinity: str | None = None
    """The closest CPUs, as a list of ranges: `0-19,40-59`."""
    numa_affinity: tuple[int, ...] = ()
    """The closest NUMA nodes."""
    gpu_numa_id: int | None = None
    """The NUMA node that the GPU's own memory is."""
    bus_id: str | None = None
    """PCI bus id: `0000:61:00.0`."""


class Nic(Frozen):
    """One network device, which other nodes are reached through."""

    name: str
    """`mlx5_2`: how links name it, and NCCL_IB_HCA. The table's label or the bus id where the source tells no name."""
    label: str
    """`NIC0`: how the source's table names it; the name itself where there is no other."""
    numa_affinity: tuple[int, ...] = ()
    bus_id: str | None = None
    bits_per_s: PositiveInt | None = None
    """Speed of the port, each way."""


class Connection(Frozen):
    """The link between two ends, in either direction."""

    a: str
    b: str
    link: LinkClass


class Island(Frozen):
    """Devices that reach one another over links of one class, which is the best class that each of them has.

    They are connected, not necessarily each to each: an 8-GPU V100 box is one island joined by a ring of NV2 links.
    """

    devices: tuple[str, ...]
    link: LinkClass | None
    """None for a device on its own."""


class NodeTopology(Frozen):
    """The graph of one node: devices, NICs, and the class of the link of each pair of them that the source tells."""

    source: str
    """Which text or tool told it."""
    devices: tuple[TopologyDevice, ...]
    nics: tuple[Nic, ...] = ()
    links: tuple[Connection, ...] = ()
    missing: tuple[str, ...] = Field(default=())
    """What the source lacks, one thing an entry; empty when it is complete."""

    @field_validator("links")
    @classmethod
    def _in_order(cls, links: tuple[Connection, ...]) -> tuple[Connection, ...]:
        return tuple(sorted(links, key=lambda one: (one.link.closeness, one.a, one.b)))

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        names = self._names
        if len(set(names)) != len(names):
            raise ValueError(f"a device or NIC is listed twice among {', '.join(names)}")
        pairs = [frozenset((one.a, one.b)) for one in self.links]
        strangers = {name for pair in pairs for name in pair} - set(names)
        if strangers:
            raise ValueError(f"links name {', '.join(sorted(strangers))}, which are not among the devices and NICs")
        if len(set(pairs)) != len(pairs) or any(len(pair) == 1 for pair in pairs):
            raise ValueError("links must join two different ends, each pair once")
        return self

    @property
    def _names(self) -> list[str]:
        return [*(device.name for device in self.devices), *(nic.name for nic in self.nics)]

    @cached_property
    def _by_pair(self) -> dict[tuple[str, str], LinkClass]:
        told = {(one.a, one.b): one.link for one in self.links}
        return told | {(b, a): link for (a, b), link in told.items()} | {(name, name): SELF for name in self._names}

    def link(self, a: str, b: str) -> LinkClass | None:
        """The class of the link between `a` and `b`; None where the source does not tell it.

        Raises:
            UserError: there is no device or NIC of that name.
        """
        for name in (a, b):
            if (name, name) not in self._by_pair:
                hint = did_you_mean(name, self._names)
                raise UserError(f"this node has no device or NIC '{name}'{hint}", where=self.source)
        return self._by_pair.get((a, b))

    def nearest_nics(self, device: str) -> tuple[str, ...]:
        """The NICs with the closest link to `device`, all of them when several are equally close.

        Raises:
            UserError: there is no device of that name.
        """
        links = {nic.name: self.link(device, nic.name) for nic in self.nics}
        told = {name: link.closeness for name, link in links.items() if link is not None}
        return tuple(name for name in told if told[name] == min(told.values()))

    def islands(self) -> tuple[Island, ...]:
        """Every device in exactly one island, in the order of the devices."""
        names = [device.name for device in self.devices]
        best = {name: self._best_link(name, names) for name in names}
        group = {name: {name} for name in names}
        for a, b in combinations(names, 2):
            if self._by_pair.get((a, b)) is not None and best[a] == best[b] == self._by_pair[a, b]:
                merged = group[a] | group[b]
                group.update(dict.fromkeys(merged, merged))
        unique = {min(members, key=names.index): members for members in group.values()}
        return tuple(
            Island(devices=tuple(sorted(members, key=names.index)), link=best[first] if len(members) > 1 else None)
            for first, members in sorted(unique.items(), key=lambda item: names.index(item[0]))
        )

    def _best_link(self, name: str, names: list[str]) -> LinkClass | None:
        links = [link for other in names if other != name and (link := self._by_pair.get((name, other)))]
        return min(links, key=lambda link: link.closeness, default=None)
