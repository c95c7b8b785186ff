"""Small questions to the planner, by their parts, so that a test can change one of them."""

from itertools import combinations
from typing import Any, NamedTuple

from hypothesis import strategies as st

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.placement.constraints import Constraints
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.search.search import search
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

A100, V100, T4, H100 = "A100-40GB-SXM", "V100-16GB-SXM", "T4", "H100-80GB-SXM"
LATENCY_S = 4e-6


class Box(NamedTuple):
    """A node whose devices are all joined, with one NIC."""

    kind: str
    num_devices: int
    gbit_per_s: float = 100.0
    bytes_per_s: float = 50e9
    """Between any two of its devices."""
    extra_bytes: int = 0
    """Of memory, on each device."""
    speed: float = 1.0
    latency_s: float = LATENCY_S

    def node(self, name: str) -> Node:
        """The node."""
        names = [f"GPU{index}" for index in range(self.num_devices)]
        link = LinkClass(kind=LinkKind.NVLINK, num_links=1)
        memory_bytes = (builtin().find(self.kind).memory_bytes or 1) + self.extra_bytes
        machine = Machine(
            name=str(self),
            devices=tuple(
                Device(type=self.kind, index=index, memory_bytes=memory_bytes) for index in range(self.num_devices)
            ),
            topology=NodeTopology(
                source="test",
                devices=tuple(TopologyDevice(name=name, index=index) for index, name in enumerate(names)),
                nics=(Nic(name="nic", label="nic", bits_per_s=int(self.gbit_per_s * 1e9)),),
                links=tuple(Connection(a=a, b=b, link=link) for a, b in combinations(names, 2)),
            ),
            figures={"NV1": Link(latency_s=self.latency_s, bytes_per_s=self.bytes_per_s)},
        )
        return Node(node_id=name, machine=machine, speeds=(self.speed,) * self.num_devices)


class Case(NamedTuple):
    """One question."""

    boxes: tuple[Box, ...]
    layers: int = 3
    hidden: int = 2048
    global_batch: int = 8
    tied: bool = False

    @property
    def cluster(self) -> ClusterSpec:
        """All boxes."""
        return cluster(self.boxes)

    @property
    def workload(self) -> WorkloadProfile:
        """A small GPT."""
        return gpt(self.layers, self.hidden, tied=self.tied)

    def ask(self, **fields: Any) -> Outcome:
        """Search."""
        return search(self.workload, self.cluster, Constraints(global_batch=self.global_batch, **fields))

    def with_boxes(self, **fields: Any) -> "Case":
        """The same with other fields in every box."""
        return self._replace(boxes=tuple(box._replace(**fields) for box in self.boxes))

    def with_faster_links(self, factor: float) -> "Case":
        """The same with more bandwidth everywhere."""
        boxes = (
            box._replace(gbit_per_s=factor * box.gbit_per_s, bytes_per_s=factor * box.bytes_per_s) for box in self.boxes
        )
        return self._replace(boxes=tuple(boxes))


def cluster(boxes: tuple[Box, ...]) -> ClusterSpec:
    """One node for each box."""
    return ClusterSpec(nodes=tuple(box.node(f"n{place}") for place, box in enumerate(boxes)), origin="file")


def gpt(layers: int, hidden: int, *, tied: bool = False) -> WorkloadProfile:
    """A GPT with short sequences."""
    shape = Transformer(name="gpt", hidden=hidden, layers=layers, heads=8, seq_len=512, vocabulary=8192, tied=tied)
    return transformer(shape)


def step_s(outcome: Outcome) -> float:
    """Predicted seconds of the best plan."""
    return outcome.best.prediction.step_time_s


def kinds_of_ranks(strategy: Strategy) -> list[str]:
    """The kind of device of every rank, in the order of `Prediction.memory_bytes`."""
    return [
        replica.device_kind
        for stage in strategy.stages
        for replica in stage.replicas
        for _ in range(stage.ranks_per_replica)
    ]


boxes = st.builds(
    Box,
    kind=st.sampled_from([A100, V100, T4]),
    num_devices=st.integers(1, 2),
    gbit_per_s=st.sampled_from([10.0, 100.0]),
    bytes_per_s=st.just(50e9),
    extra_bytes=st.just(0),
    speed=st.just(1.0),
    latency_s=st.just(LATENCY_S),
)
cases = st.builds(
    Case,
    boxes=st.lists(boxes, min_size=1, max_size=3).map(tuple),
    layers=st.integers(1, 3),
    hidden=st.sampled_from([512, 2048, 8192]),
    global_batch=st.sampled_from([4, 8]),
    tied=st.booleans(),
)
