"""Measured runs as the cost model takes them, and the machines that they ran on. Pure."""

from functools import lru_cache
from typing import NamedTuple

from heliostat.cluster.catalogue import Catalogue, DeviceType, builtin
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.placement.ground import Ground
from heliostat.placement.stage_time import StageLinks
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile

H100_96 = DeviceType(
    name="H100-96GB-HBM2e",
    memory_gib=96,
    memory_gb_per_s=2400,
    tflops={"bf16": 989.5, "fp16": 989.5, "fp8": 1979, "tf32": 494.5, "fp32": 67},
    peer_links=builtin().types["H100-80GB-SXM"].peer_links,
    pcie=builtin().types["H100-80GB-SXM"].pcie,
    tdp_w=500,
    source="torchtitan benchmarks/llama3_h100_202412_torchtitan.md: `H100s are non-standard, HBM2e, limited to 500W`",
)
CATALOGUE = Catalogue(types={**builtin().types, H100_96.name: H100_96})
"""The built-in types, and those that only the runs' authors had."""
NAMES = {
    "A100": "A100-80GB-SXM", "A100-80GB": "A100-80GB-SXM", "A100-40GB": "A100-40GB-SXM", "V100": "V100-32GB-SXM",
    "V100-16GB": "V100-16GB-SXM", "V100-32GB": "V100-32GB-SXM", "H100": "H100-80GB-SXM", "H100-80GB": "H100-80GB-SXM",
    "a100_80gb": "A100-80GB-SXM", "a100_40gb": "A100-40GB-SXM", "h100_80gb": "H100-80GB-SXM",
    "H100-96GB HBM2e 500W": H100_96.name, "H200": "H200-141GB-SXM",
}  # fmt: skip
"""How the files name devices."""


class Run(NamedTuple):
    """One measured run."""

    source: str
    group: str
    """Runs of one group do the same work on as many devices of the same type, in different ways."""
    label: str
    shape: str
    device: str
    workload: WorkloadProfile
    strategy: Strategy
    links: tuple[StageLinks, ...]
    measured_s: float
    memory_gib: float | None = None


@lru_cache(maxsize=64)
def ground_of(device: str, num_gpus: int, gbit_per_s: float) -> Ground:
    """Nodes of 8 devices joined by NVLink, with as many NICs as carry `gbit_per_s` together.

    Raises:
        UserError: the catalogue has no such device.
    """
    one = CATALOGUE.find(device)
    per_node = min(8, num_gpus)
    peer = one.peer_links
    link = LinkClass(kind=LinkKind.NVLINK, num_links=peer.num_links) if peer else LinkClass(kind=LinkKind.PHB)
    topology = NodeTopology(
        source="as the runs' authors describe it",
        devices=tuple(TopologyDevice(name=f"GPU{index}", index=index) for index in range(per_node)),
        nics=tuple(Nic(name=f"mlx5_{at}", label=f"NIC{at}", bits_per_s=int(gbit_per_s / 8 * 1e9)) for at in range(8)),
        links=tuple(
            Connection(a=f"GPU{a}", b=f"GPU{b}", link=link) for a in range(per_node) for b in range(a + 1, per_node)
        ),
    )
    machine = Machine(
        name=f"8 x {device}",
        devices=tuple(
            Device(type=one.name, index=index, memory_bytes=one.memory_bytes or 1) for index in range(per_node)
        ),
        topology=topology,
    )
    nodes = tuple(Node(node_id=f"n{number}", machine=machine) for number in range(-(-num_gpus // per_node)))
    types = {} if one.name in builtin().types else {one.name: one}
    return Ground(ClusterSpec(nodes=nodes, origin="file", types=types))


_LINKS: dict[tuple[object, ...], tuple[StageLinks, ...]] = {}


def group_links(ground: Ground, strategy: Strategy) -> tuple[StageLinks, ...]:
    """The links of the groups of `strategy`; remembered, as many runs are laid out alike."""
    key = (
        id(ground),
        *((len(stage.replicas), stage.tensor_parallel, stage.context_parallel) for stage in strategy.stages),
    )
    if key not in _LINKS:
        _LINKS[key] = tuple(ground.links([ground.shape_of(stage) for stage in strategy.stages]))
    return _LINKS[key]
