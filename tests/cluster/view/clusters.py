"""Clusters to look at, small and large."""

from typing import Any

from heliostat.cluster.machine import Machine
from heliostat.cluster.spec import ClusterSpec


def pairs(text: str) -> list[list[str]]:
    """`01 23`: GPU0 with GPU1, GPU2 with GPU3."""
    return [[f"GPU{digit}" for digit in pair] for pair in text.split()]


DGX1: dict[str, Any] = {
    "devices": "8 x V100-32GB-SXM",
    "links": {"NV2": pairs("03 04 12 15 23 47 56 67"), "NV1": pairs("01 02 13 26 37 45 46 57"), "SYS": "all"},
    "nics": [{"name": "mlx5_0", "gbit_per_s": 100, "near": [0, 1, 2, 3], "numa": 0}],
}
"""The hybrid cube mesh of a DGX-1: a ring of double links and one of single links."""
A100: dict[str, Any] = {"devices": "8 x A100-40GB-SXM", "links": "NV12", "nics": "8 x 200 Gbit/s"}
CPU: dict[str, Any] = {"devices": {"type": "cpu", "count": 2, "memory_gib": 4}, "cpus": 2}


def machine(row: dict[str, Any]) -> Machine:
    return ClusterSpec.model_validate({"machines": {"m": row}, "nodes": [{"machine": "m"}]}).nodes[0].machine


def mixed(**fields: Any) -> ClusterSpec:
    """Two A100 nodes in one rack, four V100 nodes in another."""
    data = {
        "machines": {"a100": A100, "v100": DGX1},
        "nodes": [
            {"machine": "a100", "count": 2, "labels": {"rack": "r0"}},
            {"machine": "v100", "count": 4, "labels": {"rack": "r1"}},
        ],
        "fabric": {
            "levels": [{"name": "rack", "gbit_per_s": 400}, {"name": "site", "gbit_per_s": 100, "latency_us": 20}]
        },
    }
    return ClusterSpec.model_validate({**data, **fields})


def large() -> ClusterSpec:
    """10,000 GPUs: racks of 16 nodes, pods of 20 racks, the last of each not full."""
    data = {
        "machines": {"h100": {"devices": "8 x H100-80GB-SXM", "links": "NV18", "nics": "8 x 400 Gbit/s"}},
        "nodes": [{"machine": "h100", "count": 1250}],
        "fabric": {
            "rails": True,
            "levels": [
                {"name": "rack", "nodes": 16, "gbit_per_s": 3200},
                {"name": "pod", "nodes": 320, "gbit_per_s": 1600},
                {"name": "core", "gbit_per_s": 800},
            ],
        },
    }
    return ClusterSpec.model_validate(data)


def mottled(num_racks: int) -> ClusterSpec:
    """Racks that are all different."""
    nodes = [{"machine": "a100", "count": number + 1, "labels": {"rack": f"r{number}"}} for number in range(num_racks)]
    return ClusterSpec.model_validate(
        {
            "machines": {"a100": A100},
            "nodes": nodes,
            "fabric": {"levels": [{"name": "rack", "gbit_per_s": 400}, {"name": "site"}]},
        }
    )
