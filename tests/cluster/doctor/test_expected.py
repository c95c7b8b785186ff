"""The cluster that is there against the one that a file describes."""

from typing import Any

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode
from tests.cluster.doctor.nodes import cluster, found, told

ODD: dict[str, Any] = {
    "a100": {"devices": "4 x A100-40GB-SXM", "links": "NV12"},
    "short": {"devices": "3 x A100-40GB-SXM", "links": "NV12"},
    "other": {"devices": "4 x V100-32GB-SXM", "links": "NV12"},
    "weak": {"devices": "4 x A100-40GB-SXM", "links": {"NV11": [["GPU0", "GPU3"]], "NV12": "all"}},
    "strong": {"devices": "4 x A100-40GB-SXM", "links": "NV18"},
}


def here(*machines: str, ids: list[str]) -> ClusterSpec:
    """Live nodes of these machines."""
    pools = [{"machine": machine, "ids": [name]} for machine, name in zip(machines, ids, strict=True)]
    return cluster(*pools, machines=ODD)


WANTED = here("a100", "a100", ids=["n0", "n1"])


def compared(*machines: str, ids: list[str], **fields: Any) -> list[str]:
    return told(found(here(*machines, ids=ids), expected=WANTED, **fields))


def test_missing_and_additional_nodes() -> None:
    assert compared("a100", "a100", ids=["n0", "n7"]) == [
        "error n1: is missing: the file has it with 4 x A100-40GB-SXM, 40 GiB",
        "warning n7: not in the file: 4 x A100-40GB-SXM, 40 GiB",
    ]


def test_a_lost_node_is_told_once() -> None:
    lost = (LostNode(node_id="f" * 56, name="n1", why="its raylet is gone"),)
    assert compared("a100", ids=["n0"], lost=lost) == ["error n1: is lost: its raylet is gone"]


def test_devices_that_are_missing_or_of_another_type() -> None:
    assert compared("a100", "short", ids=["n0", "n1"]) == [
        "error n1: 1 of 4 x A100-40GB-SXM missing; it has 3 x A100-40GB-SXM, 40 GiB"
    ]
    assert compared("a100", "other", ids=["n0", "n1"]) == [
        "error n1: 4 of 4 x A100-40GB-SXM missing; it has 4 x V100-32GB-SXM, 32 GiB",
        "warning n1: not in the file: 4 x V100-32GB-SXM",
    ]


def test_links_that_are_worse_or_other() -> None:
    assert compared("a100", "weak", ids=["n0", "n1"]) == [
        "error n1: devices are joined otherwise than in the file: 0 - 3 by NV11 instead of NV12"
    ]
    assert compared("a100", "strong", ids=["n0", "n1"]) == [
        "warning n1: devices are joined otherwise than in the file: 0 - 1 by NV18 instead of NV12 and 5 more pairs"
    ]


def test_a_label_that_contradicts_the_file() -> None:
    fabric = {"levels": [{"name": "rack"}, {"name": "site"}]}
    expected = cluster({"labels": {"rack": "r0"}}, fabric=fabric)
    live = cluster({"labels": {"rack": "r1"}}, fabric=fabric)
    assert told(found(live, expected=expected)) == [
        "error a100-0: its label rack=r1 contradicts the file, which has it in rack r0"
    ]


def test_names_that_do_not_match_are_matched_by_what_nodes_have() -> None:
    """As for a file with `count: 32`, and hosts with names of their own."""
    hosts = ["gpu-7", "gpu-8"]
    assert compared("a100", "a100", ids=hosts) == []
    assert compared("a100", "other", ids=hosts) == [
        "error : 1 of 2 nodes with 4 x A100-40GB-SXM are missing",
        "warning gpu-8: not in the file: 4 x V100-32GB-SXM",
    ]
    assert compared("a100", "a100", "a100", ids=[*hosts, "gpu-9"]) == [
        "warning gpu-7, gpu-8, gpu-9: not in the file: 1 more than in the file: 4 x A100-40GB-SXM"
    ]


def test_live_nodes_are_found_by_their_host() -> None:
    live = here("a100", "short", ids=["a" * 56, "b" * 56])
    named = tuple(node.model_copy(update={"hostname": f"n{place}"}) for place, node in enumerate(live.nodes))
    findings = found(live.model_copy(update={"nodes": named}), expected=WANTED)
    assert [(one.severity, one.node) for one in findings] == [("error", "n1")]
