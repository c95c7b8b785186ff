"""Nodes for the doctor to look at."""

from collections.abc import Iterable
from typing import Any

from heliostat.cluster.doctor.examine import examine
from heliostat.cluster.doctor.finding import Finding
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import Gpu, NvLink, NvLinkState, NvmlRecord
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import Survey

VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "heliostat": "0.1.0", "driver": "550.54"}


def cluster(*pools: dict[str, Any], **fields: Any) -> ClusterSpec:
    """Nodes with four A100s each, and what `pools` and `fields` say besides."""
    data = {
        "origin": "live",
        "machines": {"a100": {"devices": "4 x A100-40GB-SXM", "links": "NV12"}},
        "nodes": [{"machine": "a100", **pool} for pool in pools or ({},)],
        "fabric": {"levels": [{"name": "site"}]},
    }
    return ClusterSpec.model_validate({**data, **fields})


def gpu(index: int, *, links_down: Iterable[int] = (), num_links: int = 12, **fields: Any) -> Gpu:
    """An A100 without a fault, but for what `fields` say."""
    down = set(links_down)
    healthy: dict[str, Any] = {
        "index": index,
        "name": "NVIDIA A100-SXM4-40GB",
        "uuid": f"GPU-{index}",
        "bus_id": f"0000:0{index}:00.0",
        "nvlinks": tuple(
            NvLink(number=number, state=NvLinkState.INACTIVE if number in down else NvLinkState.ACTIVE)
            for number in range(num_links)
        ),
        "pcie_generation": 4,
        "pcie_lanes": 16,
        "pcie_generation_max": 4,
        "pcie_lanes_max": 16,
        "ecc_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "throttle_reasons": (),
    }
    return Gpu(**{**healthy, **fields})


def report(hostname: str, *gpus: Gpu, **fields: Any) -> NodeReport:
    """What a node with `gpus` says of itself."""
    usual: dict[str, Any] = {
        "hostname": hostname,
        "platform": "Linux",
        "versions": VERSIONS,
        "num_cpus": 64,
        "memory_bytes": 1 << 39,
        "gpus": NvmlRecord(driver_version="550.54", gpus=gpus) if gpus else None,
    }
    return NodeReport(**{**usual, **fields})


def found(
    spec: ClusterSpec,
    *reports: NodeReport,
    expected: ClusterSpec | None = None,
    **fields: Any,
) -> tuple[Finding, ...]:
    """The findings about `spec` whose nodes, in their order, gave `reports`."""
    by_id = dict(zip((node.node_id for node in spec.nodes), reports, strict=False))
    return examine(Survey(cluster=spec, reports=by_id, **fields), expected)


def told(findings: Iterable[Finding]) -> list[str]:
    """Each finding in a line."""
    return [f"{one.severity} {one.node}: {one.what}" for one in findings]
