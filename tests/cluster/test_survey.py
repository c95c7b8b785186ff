"""From what nodes say to a spec."""

import pytest

from heliostat.cluster.emulated_node import EmulatedNode
from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import Gpu, NvmlRecord
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import Member, assemble, survey_here, user_labels
from heliostat.errors import UserError

FABRIC = Fabric(levels=(FabricLevel(name="rack", bytes_per_s=1e9),))


def report(num_gpus: int = 0, product: str = "Tesla T4", emulates: str = "", host: str = "h") -> NodeReport:
    gpus = tuple(
        Gpu(index=index, name=product, uuid=f"GPU-{host}{index}", bus_id=f"0000:0{index}:00.0", memory_bytes=15 << 30)
        for index in range(num_gpus)
    )
    return NodeReport(
        hostname="h",
        platform="",
        versions={},
        num_cpus=64,
        memory_bytes=64 << 30,
        gpus=NvmlRecord(gpus=gpus) if num_gpus else None,
        emulates=emulates,
    )


def member(said: NodeReport, number: int = 0, **resources: float) -> Member:
    return Member(node_id=f"n{number}", hostname=f"h{number}", labels={"rack": "r"}, resources=resources, report=said)


def test_equal_nodes_share_a_machine_and_keep_their_own_names() -> None:
    found = assemble([member(report(2, host=str(number)), number, CPU=8, GPU=2) for number in range(2)])
    assert found.cluster.count_by_kind() == {"T4": 4}
    first, second = found.cluster.nodes
    assert first.machine is second.machine
    assert (first.hostname, second.labels, first.uuids) == ("h0", {"rack": "r"}, ("GPU-00", "GPU-01"))


def test_ray_decides_how_much_of_a_node_counts() -> None:
    found = assemble([member(report(4), CPU=8, GPU=2)])
    assert [device.uuid for device in found.cluster.nodes[0].devices] == ["GPU-h0", "GPU-h1"]
    assert "h0: Ray hands out 2 of 4 devices: 0, 1" in found.remarks
    cores = assemble([member(report(4), CPU=6, memory=8 << 30)], cpus_per_device=2)
    assert cores.cluster.count_by_kind() == {"cpu": 3}
    assert assemble([member(report(4), memory=8 << 30)]).cluster.nodes == ()


def test_two_raylets_of_one_host_each_have_the_gpus_that_they_see() -> None:
    """As with one raylet for each NVLink island, or for each MIG profile: indices or uuids."""
    said = [report(4).model_copy(update={"visible_devices": seen}) for seen in ("3,1", "GPU-h0,GPU-h2")]
    found = assemble([member(one, number, CPU=8, GPU=2) for number, one in enumerate(said)])
    assert [[device.uuid for device in node.devices] for node in found.cluster.nodes] == [
        ["GPU-h1", "GPU-h3"],
        ["GPU-h0", "GPU-h2"],
    ]


def test_an_unknown_product_is_kept_told_and_can_be_written_down() -> None:
    found = assemble([member(report(1, "NVIDIA X9"), CPU=8, GPU=1)])
    assert found.cluster.count_by_kind() == {"NVIDIA X9": 1}
    assert any("does not know the product 'NVIDIA X9'" in remark for remark in found.remarks)
    assert ClusterSpec.model_validate_json(found.cluster.model_dump_json()) == found.cluster


def test_what_no_node_can_tell_comes_from_what_is_known() -> None:
    known = ClusterSpec(nodes=(), origin="file", fabric=FABRIC)
    assert assemble([member(report(1), CPU=8, GPU=1)], known=known).cluster.fabric == FABRIC


def test_an_emulated_node_is_what_it_pretends_to_be_and_says_that_it_pretends() -> None:
    machine = Machine(name="a100", devices=(Device(type="A100-40GB-SXM", index=0, memory_bytes=40 << 30),))
    described = EmulatedNode(node_id="a100-0", machine=machine, labels={"rack": "r1"}, slowdowns=(1.0,), fabric=FABRIC)
    found = assemble([member(report(emulates=described.model_dump_json()), CPU=1, GPU=1)])
    assert found.cluster.origin == "emulated"
    assert found.cluster.fabric == FABRIC
    node = found.cluster.nodes[0]
    assert (node.node_id, node.hostname, node.machine, node.labels) == ("n0", "a100-0", machine, {"rack": "r1"})


def test_this_machine_alone() -> None:
    found = survey_here()
    assert found.cluster.num_devices > 0
    assert found.cluster.origin == "live"


def test_a_gpu_that_two_raylets_own_is_refused() -> None:
    with pytest.raises(UserError, match="device uuid 'GPU-h0' is there twice"):
        assemble([member(report(1), number, CPU=8, GPU=1) for number in range(2)])


def test_our_own_labels_are_not_the_users() -> None:
    assert user_labels({"ray.io/node-id": "x", "heliostat.io/node": "y", "rack": "r"}) == {"rack": "r"}
