"""A placement actuated on a real Ray cluster."""

import pytest
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat.cluster.discovery import discover
from heliostat.errors import PlacementError
from heliostat.placement.gang import reserve, verify
from heliostat.placement.placement import Placement, RankPlacement

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def placement(*node_ids: str) -> Placement:
    ranks = tuple(
        RankPlacement(rank=i, role=i, node_id=node_id, device_index=i, device_kind="cpu")
        for i, node_id in enumerate(node_ids)
    )
    return Placement(ranks=ranks, reason="test")


def where_am_i() -> str:
    return str(ray.get_runtime_context().get_node_id())


def test_ranks_run_where_they_were_placed_and_the_devices_come_back() -> None:
    spec = discover(1)
    assert spec.count_by_kind() == {"cpu": 2}
    wanted = placement(*[spec.nodes[0].node_id] * 2)
    with reserve(wanted, 1) as group:
        strategies = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(2)]
        node_ids = ray.get(
            [
                ray.remote(where_am_i).options(num_cpus=1, scheduling_strategy=strategy).remote()
                for strategy in strategies
            ]
        )
        verify(wanted, node_ids)
    with reserve(wanted, 1):
        pass


def test_a_rank_on_the_wrong_node_is_refused() -> None:
    with pytest.raises(PlacementError, match="did not place the ranks as told") as caught:
        verify(placement("aaaaaaaa1", "bbbbbbbb1"), ["aaaaaaaa1", "cccccccc1"])
    assert caught.value.got == "rank 1 is on cccccccc and belongs on bbbbbbbb"


def test_a_node_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.placement.gang.GRANT_TIMEOUT_S", 1.0)
    with pytest.raises(PlacementError, match="did not grant"), reserve(placement("0" * 56), 1):
        pass
