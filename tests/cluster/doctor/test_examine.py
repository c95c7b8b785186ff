"""The doctor as a whole: a cluster without a fault has no finding, and each finding says what to do."""

from heliostat.cluster.doctor.examine import is_healthy
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode
from tests.cluster.doctor.nodes import cluster, found, gpu, report, told


def test_nothing_is_found_on_a_cluster_without_a_fault() -> None:
    spec = cluster({"count": 2})
    reports = [report(f"h{node}", *(gpu(index) for index in range(4))) for node in range(2)]
    assert found(spec, *reports, expected=spec) == ()
    assert is_healthy(())


def test_lost_nodes_are_errors_and_come_first() -> None:
    lost = (LostNode(node_id="x", name="h9", why="its raylet is gone"),)
    findings = found(cluster(), lost=lost, remarks=("h0: RDMA NICs without a link were left out: mlx5_1",))
    assert told(findings) == [
        "error h9: is lost: its raylet is gone",
        "warning : h0: RDMA NICs without a link were left out: mlx5_1",
    ]
    assert not is_healthy(findings)
    assert is_healthy(findings[1:])
    assert all(one.next_step for one in findings)


def test_a_cluster_without_devices_is_not_healthy() -> None:
    assert told(found(ClusterSpec(nodes=(), origin="live"))) == ["error : no node with a device answers"]


def test_an_emulation_is_examined_like_hardware() -> None:
    spec = cluster({"count": 2}, origin="emulated")
    assert found(spec, report("n0"), report("n1"), expected=spec) == ()
