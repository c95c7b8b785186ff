"""From plan to devices: best fit, exact kinds, clear refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlacementError
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.solver import solve
from tests.placement.plans import data_parallel


def node(name: str, *speeds: float) -> Node:
    devices = tuple(Device(type="cpu", index=i, memory_bytes=1 << 30, speed=s) for i, s in enumerate(speeds))
    return Node.of(name, devices)


def cluster(*nodes: Node) -> ClusterSpec:
    return ClusterSpec(nodes=nodes, origin="emulated")


def plan(*replicas: tuple[str, int]) -> ParallelPlan:
    return data_parallel([(kind, n, n) for kind, n in replicas])


def test_a_small_gang_takes_the_fullest_node_that_holds_it() -> None:
    placement = solve(plan(("cpu", 4), ("cpu", 4)), cluster(node("a", 1, 1, 1, 1), node("b", 1, 1), node("c", 1, 1, 1)))
    assert {rank.node_id for rank in placement.ranks} == {"b"}


def test_a_large_gang_takes_as_few_nodes_as_possible() -> None:
    placement = solve(plan(*[("cpu", 2)] * 5), cluster(node("a", 1, 1, 1, 1), node("b", 1, 1), node("c", 1)))
    assert [rank.node_id for rank in placement.ranks] == ["a"] * 4 + ["c"]


def test_kinds_are_honoured_and_shares_follow_them() -> None:
    placement = solve(plan(("cpu", 6), ("cpu@0.50", 3)), cluster(node("a", 0.5), node("b", 1.0)))
    assert {rank.device_kind: rank.num_samples for rank in placement.ranks} == {"cpu": 6, "cpu@0.50": 3}
    assert {rank.device_kind: rank.node_id for rank in placement.ranks} == {"cpu": "b", "cpu@0.50": "a"}


def test_too_few_devices() -> None:
    with pytest.raises(PlacementError, match=r"needs 2 free devices of kind 'cpu'") as caught:
        solve(plan(("cpu", 4), ("cpu", 4)), cluster(node("a", 1)))
    assert caught.value.got == "1 free; free now: {'cpu': 1}"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_every_rank_owns_a_device_of_its_own(sizes: list[int], data: st.DataObject) -> None:
    spec = cluster(*(node(f"n{i}", *[1.0] * size) for i, size in enumerate(sizes)))
    if not spec.num_devices:
        return
    count = data.draw(st.integers(1, spec.num_devices))
    placement = solve(plan(*[("cpu", 1 + i) for i in range(count)]), spec)
    assert len({(rank.node_id, rank.device_index) for rank in placement.ranks}) == count
    assert [rank.rank for rank in placement.ranks] == list(range(count))
    assert sorted(placement.shares) == list(range(1, count + 1))
    order = [rank.node_id for rank in placement.ranks]
    assert len({*order}) == sum(1 for i, name in enumerate(order) if i == 0 or order[i - 1] != name)
