"""What there is: nodes, their devices, and the network between them. Pure: no Ray, no torch.

A `ClusterSpec` is the same whether it was discovered on live nodes, read from a file, or emulated; `origin` says which,
so that an emulated figure is never taken for a real one.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from heliostat.values import Frozen, digest

GIB = 1 << 30


class Link(Frozen):
    """A way for bytes: `time = latency_s + bytes / bytes_per_s`."""

    latency_s: float = Field(ge=0)
    bytes_per_s: PositiveFloat

    def time_s(self, num_bytes: float) -> float:
        """Seconds to move `num_bytes` once over this link."""
        return self.latency_s + num_bytes / self.bytes_per_s


class Device(Frozen):
    """One accelerator, or one share of a CPU, that a rank can own."""

    type: str
    """Catalogue name: `cpu`, `A100-80GB-SXM`, ..."""
    index: int = Field(ge=0)
    """Index inside its node; what CUDA_VISIBLE_DEVICES would say for a GPU."""
    memory_bytes: PositiveInt
    speed: PositiveFloat = 1.0
    """Measured speed relative to the fastest device of the same type here; 1.0 until measured."""

    @property
    def kind(self) -> str:
        """Devices of one kind are interchangeable for a plan: same type, same measured speed class."""
        return self.type if self.speed == 1.0 else f"{self.type}@{self.speed:.2f}"


class Node(Frozen):
    """One machine: its devices and the labels that place it in the fabric."""

    node_id: str
    devices: tuple[Device, ...]
    hostname: str = ""
    labels: dict[str, str] = Field(default_factory=dict)

    def with_speeds(self, speeds: Mapping[tuple[str, int], float]) -> "Node":
        """This node with the speeds found under its id or else its hostname, and the device's index."""
        devices = (
            device.model_copy(
                update={
                    "speed": speeds.get((self.node_id, device.index), speeds.get((self.hostname, device.index), 1.0))
                }
            )
            for device in self.devices
        )
        return self.model_copy(update={"devices": tuple(devices)})


class ClusterSpec(Frozen):
    """All nodes, and the measured link between any two ranks (one figure until topology is known)."""

    nodes: tuple[Node, ...]
    origin: Literal["live", "file", "emulated"]
    link: Link | None = None
    """All-reduce bandwidth between devices as measured, None until it is."""

    @cached_property
    def num_devices(self) -> int:
        """Devices over all nodes."""
        return sum(len(node.devices) for node in self.nodes)

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
            sorted((device.type, device.index, device.memory_bytes // GIB) for device in node.devices)
            for node in self.nodes
        )
        return digest({"origin": self.origin, "nodes": nodes})
