"""What Ray says and what the nodes say, put together; the real part on the session's cluster."""

import pytest
import ray

from heliostat.cluster.discovery import discover, free_part, survey, trainable
from heliostat.cluster.spec import ClusterSpec

MIXED = ClusterSpec.model_validate(
    {
        "machines": {
            "gpus": {"devices": "4 x T4"},
            "cores": {"devices": {"type": "cpu", "count": 3, "memory_gib": 1}},
        },
        "nodes": [{"machine": "gpus", "count": 2}, {"machine": "cores"}],
    }
)


def indices(cluster: ClusterSpec) -> dict[str, list[int]]:
    return {node.node_id: [device.index for device in node.devices] for node in cluster.nodes}


def test_cores_are_left_alone_where_there_are_gpus() -> None:
    assert indices(trainable(MIXED)) == {"gpus-0": [0, 1, 2, 3], "gpus-1": [0, 1, 2, 3]}
    cores = ClusterSpec(nodes=MIXED.nodes[2:], origin="file")
    assert trainable(cores) is cores


def test_what_is_free_is_counted_in_gpus_and_in_cores() -> None:
    free = {"gpus-0": {"GPU": 2.0, "CPU": 64.0}, "gpus-1": {"GPU": 4.0, "CPU": 5.0}, "cores-0": {"CPU": 4.0}}
    assert indices(free_part(MIXED, free, 2)) == {"gpus-0": [0, 1], "gpus-1": [0, 1], "cores-0": [0, 1]}
    assert free_part(MIXED, {}, 1).num_devices == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_node_without_gpus_gives_its_cores() -> None:
    found = survey()
    assert found.lost == ()
    assert found.cluster.origin == "live"
    assert found.cluster.count_by_kind() == {"cpu": 2}
    assert found.cluster.nodes[0].node_id == ray.get_runtime_context().get_node_id()
    assert found.reports.keys() == {found.cluster.nodes[0].node_id}
    assert discover(1) == found.cluster
    assert discover(2).count_by_kind() == {"cpu": 1}
