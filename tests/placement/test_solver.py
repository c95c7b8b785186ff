"""From plan to devices: best fit, exact kinds, clear refusals."""

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlacementError
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.placement import Placement
from heliostat.placement.solver import solve
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from tests.placement.plans import data_parallel


def node(name: str, *speeds: float) -> Node:
    devices = tuple(Device(type="cpu", index=i, memory_bytes=1 << 30, speed=s) for i, s in enumerate(speeds))
    return Node.of(name, devices)


def cluster(*nodes: Node) -> ClusterSpec:
    return ClusterSpec(nodes=nodes, origin="emulated")


def plan(*replicas: tuple[str, int]) -> ParallelPlan:
    return data_parallel([(kind, n, n) for kind, n in replicas])


def pipeline(*stages: tuple[int, list[str]]) -> ParallelPlan:
    """Stages of one block each: the tensor-parallel degree, and the kind of each replica."""
    strategy = Strategy(
        global_batch=60,
        stages=tuple(
            StageStrategy(
                first_block=number,
                end_block=number + 1,
                replicas=tuple(
                    ReplicaShare(device_kind=kind, num_samples=60 // len(kinds), micro_batch=60 // len(kinds))
                    for kind in kinds
                ),
                tensor_parallel=tensor,
            )
            for number, (tensor, kinds) in enumerate(stages)
        ),
        schedule="1f1b" if len(stages) > 1 else "none",
    )
    return data_parallel([("cpu", 1, 1)]).model_copy(update={"strategy": strategy})


def nodes_by_role(placement: Placement) -> str:
    """The node of every rank of the plan, one letter each."""
    return "".join(rank.node_id for rank in sorted(placement.ranks, key=lambda rank: rank.role))


def test_a_small_gang_takes_the_fullest_node_that_holds_it() -> None:
    placement = solve(plan(("cpu", 4), ("cpu", 4)), cluster(node("a", 1, 1, 1, 1), node("b", 1, 1), node("c", 1, 1, 1)))
    assert {rank.node_id for rank in placement.ranks} == {"b"}


def test_a_large_gang_takes_as_few_nodes_as_possible() -> None:
    placement = solve(plan(*[("cpu", 2)] * 5), cluster(node("a", 1, 1, 1, 1), node("b", 1, 1), node("c", 1)))
    assert [rank.node_id for rank in placement.ranks] == ["a"] * 4 + ["c"]


def test_kinds_are_honoured_and_roles_follow_them() -> None:
    placement = solve(plan(("cpu", 6), ("cpu@0.50", 3)), cluster(node("a", 0.5), node("b", 1.0)))
    assert {rank.role: rank.device_kind for rank in placement.ranks} == {0: "cpu", 1: "cpu@0.50"}
    assert {rank.role: rank.node_id for rank in placement.ranks} == {0: "b", 1: "a"}


def test_too_few_devices() -> None:
    with pytest.raises(PlacementError, match=r"needs 2 free devices of kind 'cpu'") as caught:
        solve(plan(("cpu", 4), ("cpu", 4)), cluster(node("a", 1)))
    assert caught.value.got == "1 free; free now: {'cpu': 1}"


def test_tensor_parallel_ranks_share_a_node_and_so_do_the_replicas_of_a_stage() -> None:
    two = cluster(node("a", 1, 1, 1, 1), node("b", 1, 1, 1, 1))
    wide_second = pipeline((1, ["cpu"] * 3), (2, ["cpu"] * 2))
    assert nodes_by_role(solve(wide_second, two)) == "bbb" + "aaaa"
    assert nodes_by_role(solve(pipeline((1, ["cpu"] * 3), (2, ["cpu"]), (1, ["cpu"] * 2)), two)) == "bbb" + "aa" + "aa"


def test_a_group_takes_a_node_more_rather_than_be_torn() -> None:
    three = cluster(node("a", 1, 1, 1), node("b", 1, 1, 1), node("c", 1, 1))
    assert nodes_by_role(solve(pipeline((2, ["cpu"] * 3)), three)) == "aabbcc"


def test_a_group_that_no_node_holds_is_torn_over_the_largest() -> None:
    placement = solve(pipeline((4, ["cpu"])), cluster(node("a", 1), node("b", 1, 1), node("c", 1, 1, 1)))
    assert nodes_by_role(placement) == "ccca"


def test_stages_on_kinds_of_their_own() -> None:
    spec = cluster(node("a", 1, 1), node("b", 0.5, 0.5, 1))
    placement = solve(pipeline((2, ["cpu@0.50"]), (1, ["cpu", "cpu"])), spec)
    assert nodes_by_role(placement) == "bb" + "aa"
    assert [rank.role for rank in placement.ranks] == [0, 1, 2, 3]
    assert placement.describe().startswith("rank 0 of the plan on b/0")


def test_too_few_devices_for_tensor_parallel_replicas() -> None:
    with pytest.raises(PlacementError, match=r"needs 6 free devices of kind 'cpu'") as caught:
        solve(pipeline((2, ["cpu"] * 2), (1, ["cpu"] * 2)), cluster(node("a", 1, 1, 1, 1, 1)))
    assert caught.value.got == "5 free; free now: {'cpu': 5}"


plans = st.lists(
    st.tuples(st.sampled_from([1, 2, 4]), st.lists(st.sampled_from(["cpu", "cpu@0.50"]), min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
).map(lambda stages: pipeline(*stages))
clusters = st.lists(st.lists(st.sampled_from([1.0, 0.5]), max_size=6), min_size=1, max_size=6).map(
    lambda sizes: cluster(*(node("abcdef"[place], *speeds) for place, speeds in enumerate(sizes)))
)


@settings(deadline=None, max_examples=200)
@given(plans, clusters)
def test_every_rank_owns_a_device_of_its_kind(wanted: ParallelPlan, spec: ClusterSpec) -> None:
    roles = [
        (number, at, replica.device_kind)
        for number, stage in enumerate(wanted.stages)
        for at, replica in enumerate(stage.replicas)
        for _ in range(stage.ranks_per_replica)
    ]
    there = {(one.node_id, device.index): device.kind for one in spec.nodes for device in one.devices}
    needs = {kind: sum(kind == other for *_, other in roles) for *_, kind in roles}
    if any(count > spec.count_by_kind().get(kind, 0) for kind, count in needs.items()):
        with pytest.raises(PlacementError, match="the plan needs"):
            solve(wanted, spec)
        return
    placement = solve(wanted, spec)
    assert placement == solve(wanted, spec)
    assert [rank.rank for rank in placement.ranks] == list(range(len(roles)))
    assert sorted(rank.role for rank in placement.ranks) == list(range(len(roles)))
    seats = [(rank.node_id, rank.device_index) for rank in placement.ranks]
    assert len({*seats}) == len(roles)
    assert all(there[seat] == rank.device_kind for seat, rank in zip(seats, placement.ranks, strict=True))
    assert all(roles[rank.role][2] == rank.device_kind for rank in placement.ranks)
    nodes = [name for name, _ in groupby(rank.node_id for rank in placement.ranks)]
    assert len(nodes) == len({*nodes}), "ranks of one node are neighbours"
    check_groups(placement, roles, spec)


def check_groups(placement: Placement, roles: list[tuple[int, int, str]], spec: ClusterSpec) -> None:
    """Replicas are torn only if first-fit by size, which is exact for sizes that divide one another, tears one."""
    nodes: dict[tuple[int, int, str], set[str]] = {}
    for rank in placement.ranks:
        nodes.setdefault(roles[rank.role], set()).add(rank.node_id)
    free = [[sum(device.kind == kind for device in one.devices) for kind in ("cpu", "cpu@0.50")] for one in spec.nodes]
    fits = True
    for group in sorted(nodes, key=lambda group: -roles.count(group)):
        kind, size = ("cpu", "cpu@0.50").index(group[2]), roles.count(group)
        place = next((at for at, own in enumerate(free) if own[kind] >= size), None)
        if place is None:
            fits = False
            break
        free[place][kind] -= size
    assert not fits or all(len(own) == 1 for own in nodes.values())
