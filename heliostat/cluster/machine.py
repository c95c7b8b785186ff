"""The hardware of one node: its devices, and how they and the NICs are joined. Equal nodes share a `Machine`. Pure."""

from collections.abc import Iterable
from functools import cached_property
from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from heliostat.cluster.links import Link
from heliostat.cluster.topology import LinkClass, NodeTopology
from heliostat.values import Frozen


class Device(Frozen):
    """One accelerator, a MIG instance of one, or one share of a CPU: what a rank can own."""

    type: str
    """Catalogue name: `cpu`, `A100-80GB-SXM`, ..."""
    index: NonNegativeInt
    """Index among the devices of its node; for a whole GPU what CUDA_VISIBLE_DEVICES would say."""
    memory_bytes: PositiveInt
    gpu: NonNegativeInt | None = None
    """Of a MIG instance, the index of the GPU it is cut from; None for a whole device."""
    mig: str | None = None
    """Its MIG profile: `1g.10gb`."""
    uuid: str = ""
    """As the driver tells it; empty when unknown."""
    speed: PositiveFloat = 1.0
    """Measured speed relative to the fastest device of the same type here; 1.0 until measured."""

    @property
    def kind(self) -> str:
        """Devices of one kind are interchangeable for a plan: same type, same profile, same measured speed class."""
        whole = self.type if self.mig is None else f"{self.type}/{self.mig}"
        return whole if self.speed == 1.0 else f"{whole}@{self.speed:.2f}"

    @property
    def physical(self) -> int:
        """Index of the GPU that it is, or that it is cut from."""
        return self.index if self.gpu is None else self.gpu


class Machine(Frozen):
    """A model of node: what is on its boards. No names and no measurements of a single node are in it."""

    name: str
    devices: tuple[Device, ...]
    """In index order, without uuid and speed."""
    topology: NodeTopology | None = None
    """None where nobody told how the devices are joined."""
    figures: dict[str, Link] = Field(default_factory=dict)
    """What a link of a class carries each way, where the catalogue is not to be believed: `NV12`, `SYS`, ..."""
    num_cpus: PositiveInt | None = None
    memory_bytes: PositiveInt | None = None
    """Of the host."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        indices = [device.index for device in self.devices]
        twice = sorted({index for index in indices if indices.count(index) > 1})
        if twice:
            raise ValueError(f"device index {', '.join(map(str, twice))} is there twice")
        if self.topology is not None:
            absent = {device.physical for device in self.devices} - set(self._names)
            if absent:
                raise ValueError(f"the topology does not list GPU {', '.join(map(str, sorted(absent)))}")
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.devices))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {one.index: one.name for one in self.topology.devices} if self.topology else {}

    @cached_property
    def by_index(self) -> dict[int, Device]:
        """The devices by their index."""
        return {device.index: device for device in self.devices}

    def end(self, index: int) -> str:
        """How the topology names the GPU of device `index`."""
        return self._names[self.by_index[index].physical]

    def link(self, a: int, b: int) -> LinkClass | None:
        """The class of the link between the devices `a` and `b`; None where it is not told."""
        return self.topology.link(self.end(a), self.end(b)) if self.topology else None

    def part(self, indices: Iterable[int]) -> "Machine":
        """This machine with the devices `indices` alone; the topology still tells of all."""
        wanted = set(indices)
        return self.model_copy(update={"devices": tuple(one for one in self.devices if one.index in wanted)})
