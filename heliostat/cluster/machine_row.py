"""The written form of one machine.

Short for what is regular (`devices: 8 x A100-40GB-SXM`, `links: NV12`, `nics: 8 x 200 Gbit/s`), in full for what is not
(`topology` with every link), and whatever a machine holds has such a form.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from heliostat.cluster.catalogue import GIB, Catalogue
from heliostat.cluster.links import PCIE_LATENCY_S, PEER_LATENCY_S, Link, is_peer
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.rates import RateRow
from heliostat.cluster.topology import Connection, LinkClass, Nic, NodeTopology, TopologyDevice
from heliostat.document import Keys
from heliostat.errors import UserError
from heliostat.values import Frozen

Pairs = Literal["all"] | tuple[tuple[str, str], ...]
_DEVICES = re.compile(r"(?:(\d+)\s*x\s*)?(\S+)")
_NICS = re.compile(r"(\d+)\s*x\s*([\d.]+)\s*Gbit/s")
Mistakes = list[tuple[Keys, str]]


class DeviceRow(Frozen):
    """Some equal devices, numbered on from those before."""

    type: str
    count: PositiveInt = 1
    index: NonNegativeInt | None = None
    """Index of the first; one more than that of the device before unless said."""
    memory_gib: PositiveFloat | None = None
    memory_bytes: PositiveInt | None = None
    """The catalogue's unless said; a type that is always measured needs one of the two."""
    mig: str | None = None
    gpu: NonNegativeInt | None = None
    """Of MIG instances, the index of the GPU they are cut from."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """`8 x TYPE` or `TYPE`."""
        if not isinstance(value, str):
            return value
        match = _DEVICES.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"devices are written `8 x TYPE`, got {value!r}")
        return {"count": int(match[1] or 1), "type": match[2]}

    @model_validator(mode="after")
    def _in_one_unit(self) -> "DeviceRow":
        if self.memory_gib is not None and self.memory_bytes is not None:
            raise ValueError("give one of memory_gib and memory_bytes")
        if (self.mig is None) != (self.gpu is None):
            raise ValueError("a MIG instance needs both its profile, mig, and the index of its GPU, gpu")
        return self


class NicRow(Frozen):
    """One NIC by hand."""

    name: str
    gbit_per_s: PositiveFloat | None = None
    near: tuple[NonNegativeInt, ...] = ()
    """The devices that reach it over one PCIe switch; a NIC near to none is used by all alike."""
    numa: NonNegativeInt | None = None


class TopologyRow(Frozen):
    """Every link, as a discovery or a parser tells it."""

    source: str
    devices: tuple[TopologyDevice, ...]
    nics: tuple[Nic, ...] = ()
    links: dict[str, tuple[tuple[str, str], ...]] = Field(default_factory=dict)
    """Class of link, as `LinkClass.code` has it -> the pairs it joins."""
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, topology: NodeTopology) -> "TopologyRow":
        """The written form of `topology`."""
        links: dict[str, list[tuple[str, str]]] = {}
        for one in topology.links:
            links.setdefault(one.link.code, []).append((one.a, one.b))
        return cls(
            source=topology.source,
            devices=topology.devices,
            nics=topology.nics,
            links={code: tuple(pairs) for code, pairs in links.items()},
            missing=topology.missing,
        )

    def topology(self, problem: Mistakes) -> NodeTopology | None:
        """The topology; what is wrong goes to `problem`."""
        return _topology(self.source, self.devices, self.nics, self.links, self.missing, ("topology", "links"), problem)


class MachineRow(Frozen):
    """One machine. At most one of `links` with `nics`, and `topology`."""

    devices: tuple[DeviceRow, ...] = Field(min_length=1)
    links: dict[str, Pairs] = Field(default_factory=dict)
    """Class of link -> the pairs it joins, or `all` that no other class joins; one class alone is for all pairs."""
    nics: tuple[NicRow, ...] = ()
    topology: TopologyRow | None = None
    bandwidth: dict[str, RateRow] = Field(default_factory=dict)
    """What a class of link carries each way, where the catalogue's figure is wrong."""
    cpus: PositiveInt | None = None
    memory_bytes: PositiveInt | None = None
    """Of the host."""

    @field_validator("devices", mode="before")
    @classmethod
    def _one_row(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Mapping) else value

    @field_validator("links", mode="before")
    @classmethod
    def _one_class(cls, value: Any) -> Any:
        return {value: "all"} if isinstance(value, str) else value

    @field_validator("nics", mode="before")
    @classmethod
    def _equal_nics(cls, value: Any) -> Any:
        """`8 x 200 Gbit/s`."""
        if not isinstance(value, str):
            return value
        match = _NICS.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"NICs are written `8 x 200 Gbit/s`, got {value!r}")
        return [{"name": f"NIC{number}", "gbit_per_s": float(match[2])} for number in range(int(match[1]))]

    @model_validator(mode="after")
    def _one_form(self) -> "MachineRow":
        if self.topology is not None and (self.links or self.nics):
            raise ValueError("give `topology`, or else `links` and `nics`")
        return self

    @classmethod
    def of(cls, machine: Machine) -> "MachineRow":
        """The written form of `machine`, in full."""
        return cls(
            devices=tuple(_device_rows(machine.devices)),
            topology=TopologyRow.of(machine.topology) if machine.topology else None,
            bandwidth={
                name: RateRow(bytes_per_s=link.bytes_per_s, latency_s=link.latency_s)
                for name, link in machine.figures.items()
            },
            cpus=machine.num_cpus,
            memory_bytes=machine.memory_bytes,
        )

    def written(self) -> dict[str, Any]:
        """Plain data without what goes without saying."""
        return self.model_dump(exclude_defaults=True)

    def machine(self, name: str, catalogue: Catalogue) -> tuple[Machine | None, Mistakes]:
        """The machine that the row describes, None if it describes none, and what is wrong with the row."""
        mistakes: Mistakes = []
        devices = tuple(self._devices(catalogue, mistakes))
        topology = self.topology.topology(mistakes) if self.topology else self._topology(devices, mistakes)
        figures = dict(self._figures(mistakes))
        if mistakes:
            return None, mistakes
        try:
            return Machine(
                name=name,
                devices=devices,
                topology=topology,
                figures=figures,
                num_cpus=self.cpus,
                memory_bytes=self.memory_bytes,
            ), []
        except ValidationError as error:
            return None, [((), _message(error))]

    def _devices(self, catalogue: Catalogue, mistakes: Mistakes) -> Iterator[Device]:
        index = 0
        for place, row in enumerate(self.devices):
            keys: Keys = ("devices", place)
            try:
                known = catalogue.find(row.type)
            except UserError as error:
                mistakes.append((keys, error.what))
                continue
            memory_bytes = row.memory_bytes or known.memory_bytes
            if row.memory_gib is not None:
                memory_bytes = int(row.memory_gib * GIB)
            elif row.memory_bytes is None and row.mig is not None:
                profile = next((one for one in known.mig if one.name == row.mig), None)
                if profile is None:
                    profiles = ", ".join(one.name for one in known.mig) or "none"
                    mistakes.append((keys, f"{known.name} has no MIG profile '{row.mig}'; it has {profiles}"))
                    continue
                memory_bytes = known.mig_memory_bytes(profile)
            if memory_bytes is None:
                mistakes.append((keys, f"a device of type '{row.type}' needs memory_gib"))
                continue
            first = index if row.index is None else row.index
            index = first + row.count
            for number in range(first, index):
                yield Device(type=known.name, index=number, memory_bytes=memory_bytes, gpu=row.gpu, mig=row.mig)

    def _topology(self, devices: Sequence[Device], mistakes: Mistakes) -> NodeTopology | None:
        if not self.links and not self.nics:
            return None
        names = {device.physical: f"GPU{device.physical}" for device in devices}
        links = {code: pairs for code, pairs in self.links.items() if pairs != "all"}
        told = {frozenset(pair) for pairs in links.values() for pair in pairs}
        for code, pairs in self.links.items():
            if pairs == "all":
                links[code] = tuple(pair for pair in combinations(names.values(), 2) if frozenset(pair) not in told)
        if list(self.links.values()).count("all") > 1:
            mistakes.append((("links",), "only one class can join `all` other pairs"))
        near = tuple((f"GPU{index}", nic.name) for nic in self.nics for index in nic.near)
        if near:
            links["PIX"] = (*links.get("PIX", ()), *near)
        return _topology(
            "spec",
            [TopologyDevice(name=name, index=index) for index, name in names.items()],
            [
                Nic(
                    name=nic.name,
                    label=nic.name,
                    numa_affinity=() if nic.numa is None else (nic.numa,),
                    bits_per_s=None if nic.gbit_per_s is None else int(nic.gbit_per_s * 1e9),
                )
                for nic in self.nics
            ],
            links,
            (),
            ("links",),
            mistakes,
        )

    def _figures(self, mistakes: Mistakes) -> Iterator[tuple[str, Link]]:
        for code, row in self.bandwidth.items():
            link = _link_class(code, ("bandwidth", code), mistakes)
            if link is not None and row.rate is None:
                mistakes.append((("bandwidth", code), "needs gb_per_s"))
            elif link is not None and row.rate is not None:
                usual = PEER_LATENCY_S if is_peer(link) else PCIE_LATENCY_S
                yield str(link), Link(latency_s=usual if row.latency is None else row.latency, bytes_per_s=row.rate)


def _topology(
    source: str,
    devices: Sequence[TopologyDevice],
    nics: Sequence[Nic],
    links: Mapping[str, Sequence[tuple[str, str]]],
    missing: tuple[str, ...],
    place: Keys,
    mistakes: Mistakes,
) -> NodeTopology | None:
    connections: dict[frozenset[str], Connection] = {}
    names = {device.name for device in devices} | {nic.name for nic in nics}
    found = len(mistakes)
    for code, pairs in links.items():
        keys: Keys = (*place, code)
        link = _link_class(code, keys, mistakes)
        for a, b in pairs if link is not None else ():
            assert link is not None
            before = connections.get(frozenset((a, b)))
            if before is not None and before.link != link:
                mistakes.append((keys, f"{a} - {b} is asymmetric: {before.link} in one direction, {link} in the other"))
            elif a == b or not {a, b} <= names:
                mistakes.append((keys, f"{a} - {b} does not join two of {', '.join(sorted(names))}"))
            else:
                connections[frozenset((a, b))] = Connection(a=a, b=b, link=link)
    if len(mistakes) > found:
        return None
    return NodeTopology(
        source=source, devices=tuple(devices), nics=tuple(nics), links=tuple(connections.values()), missing=missing
    )


def _link_class(code: str, keys: Keys, mistakes: Mistakes) -> LinkClass | None:
    try:
        return LinkClass.parse(code)
    except ValueError as error:
        mistakes.append((keys, str(error)))
        return None


def _device_rows(devices: Sequence[Device]) -> Iterator[DeviceRow]:
    """Neighbours that differ in their index alone, in one row."""

    def likeness(item: tuple[int, Device]) -> tuple[object, ...]:
        place, one = item
        return one.index - place, one.type, one.memory_bytes, one.gpu, one.mig

    expected = 0
    for _, group in groupby(enumerate(devices), key=likeness):
        members = [device for _, device in group]
        first = members[0]
        yield DeviceRow(
            type=first.type,
            count=len(members),
            index=None if first.index == expected else first.index,
            memory_bytes=first.memory_bytes,
            mig=first.mig,
            gpu=first.gpu,
        )
        expected = members[-1].index + 1


def _message(error: ValidationError) -> str:
    return "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
