"""What was measured on a cluster: rates of its devices and times of its collectives. Pure.

A measurement goes before what the catalogue says; the catalogue stays what it is, so that both can be compared.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from heliostat.cluster.catalogue import Dtype
from heliostat.cluster.links import Link
from heliostat.values import Frozen

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"]


class MatmulRate(Frozen):
    """The rate of an n x n by n x n matrix product."""

    dtype: Dtype
    size: PositiveInt
    """n."""
    flops_per_s: PositiveFloat
    """2 n^3 over the median time."""


class DeviceRates(Frozen):
    """What one kind of device does: medians over its devices, all of them at work at once."""

    matmul: tuple[MatmulRate, ...]
    memory_bytes_per_s: PositiveFloat
    """Read plus written by a copy that no cache holds."""
    to_device_bytes_per_s: PositiveFloat | None = None
    """From pinned host memory; None for a CPU, which needs no such copy."""
    to_host_bytes_per_s: PositiveFloat | None = None

    def flops(self, dtype: Dtype) -> float | None:
        """The best rate measured for `dtype`; None if it was not."""
        return max((one.flops_per_s for one in self.matmul if one.dtype == dtype), default=None)


class GroupShape(Frozen):
    """What makes the collectives of two groups alike: how many ranks, on how many nodes, of what, joined by what."""

    num_ranks: PositiveInt
    num_nodes: PositiveInt
    device_type: str
    """Of mixed groups all types, sorted, with a + between them."""
    link: str
    """The class of the weakest link that the ring crosses: `NV12`, `SYS`, `host` for CPU devices of one node, or the
    fabric level between its nodes; `network` where there are no levels."""

    def __str__(self) -> str:
        nodes = "1 node" if self.num_nodes == 1 else f"{self.num_nodes} nodes"
        return f"{self.num_ranks} x {self.device_type} on {nodes} over {self.link}"


class Sample(Frozen):
    """One size of message and how long it took."""

    num_bytes: PositiveInt
    seconds: PositiveFloat
    """Median over repetitions of the slowest rank's time."""
    spread: NonNegativeFloat
    """Interquartile range over the median."""


class Curve(Frozen):
    """How long a collective takes in groups of one shape, by size.

    The size is that of the whole tensor: what every rank reduces, what all of them gather, what is scattered, what one
    rank sends to all others together; for `send_recv` the message.
    """

    operation: Operation
    group: GroupShape
    samples: tuple[Sample, ...] = Field(min_length=1)
    """In increasing size."""
    line: Link
    """Latency and bandwidth that fit the samples best: for comparison, and beyond the largest sample."""

    @model_validator(mode="after")
    def _is_sorted(self) -> Self:
        sizes = [one.num_bytes for one in self.samples]
        if sizes != sorted(set(sizes)):
            raise ValueError("the samples of a curve must come in increasing size, each once")
        return self

    def time_s(self, num_bytes: float) -> float:
        """Seconds for a message of `num_bytes`: between two samples linear in size, beyond the last at its slope."""
        sizes = [one.num_bytes for one in self.samples]
        place = bisect_left(sizes, num_bytes)
        if place == 0:
            return self.samples[0].seconds
        last = self.samples[place - 1]
        if place == len(sizes):
            return last.seconds + (num_bytes - last.num_bytes) / self.line.bytes_per_s
        after = self.samples[place]
        part = (num_bytes - last.num_bytes) / (after.num_bytes - last.num_bytes)
        return last.seconds + part * (after.seconds - last.seconds)


class Measured(Frozen):
    """One calibration."""

    date: str
    """UTC, ISO 8601."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of torch, Ray, the collective library, drivers."""
    emulated: bool
    """Measured on emulated devices: true of the emulation, of no real hardware."""
    rates: dict[str, DeviceRates] = Field(default_factory=dict)
    """By device kind."""
    curves: tuple[Curve, ...] = ()

    def link(self, types: Iterable[str], *, num_nodes: int, link: str) -> Link | None:
        """What two devices of `types` joined by `link` were measured to get; None if they were not."""
        name = "+".join(sorted(set(types)))
        found = [
            one.line
            for one in self.curves
            if one.operation == "send_recv"
            and one.group == GroupShape(num_ranks=2, num_nodes=num_nodes, device_type=name, link=link)
        ]
        return found[0] if found else None

    def of_group(self, types: Iterable[str], *, num_ranks: int, num_nodes: int) -> tuple[Curve, ...]:
        """The curves of groups of that many ranks and nodes, of devices of `types`: the slowest of each operation."""
        name = "+".join(sorted(set(types)))
        found: dict[Operation, Curve] = {}
        for one in self.curves:
            group = one.group
            if (group.num_ranks, group.num_nodes, group.device_type) == (num_ranks, num_nodes, name):
                slowest = found.setdefault(one.operation, one)
                if one.samples[-1].seconds > slowest.samples[-1].seconds:
                    found[one.operation] = one
        return tuple(found.values())
