"""Where ranks go, and the links of their groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device
from heliostat.cluster.measured import Curve, GroupShape, Measured, Sample
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlanError, UserError
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from tests.placement.clusters import box, cluster

A100, V100 = "A100-40GB-SXM", "V100-16GB-SXM"


def curve(num_ranks: int, bytes_per_s: float = 1e9) -> Curve:
    return Curve(
        operation="all_reduce",
        group=GroupShape(num_ranks=num_ranks, num_nodes=1, device_type="cpu", link="host"),
        samples=(Sample(num_bytes=1, seconds=1e-3, spread=0), Sample(num_bytes=1000, seconds=2e-3, spread=0)),
        line=Link(latency_s=1e-3, bytes_per_s=bytes_per_s),
    )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    shapes=st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=4),
)
def test_every_rank_gets_a_device_of_its_own_and_no_group_is_torn_where_there_is_room(
    sizes: list[int], shapes: list[tuple[int, int]]
) -> None:
    ground = Ground(cluster(*(box(*[A100] * size) for size in sizes)))
    wanted = [Shape((count,), tensor) for count, tensor in shapes]
    if sum(shape.width * shape.tensor for shape in wanted) > sum(sizes):
        with pytest.raises(PlanError, match="the plan wants"):
            ground.lay_out(wanted)
        return
    layout = ground.lay_out(wanted)
    devices = [(part.node, index) for groups in layout for group in groups for part in group for index in part.indices]
    assert len(set(devices)) == len(devices) == sum(shape.width * shape.tensor for shape in wanted)
    assert [len(groups) for groups in layout] == [shape.width for shape in wanted]
    free, whole = sorted(sizes, reverse=True), True
    for tensor in sorted((tensor for count, tensor in shapes for _ in range(count)), reverse=True):
        place = next((at for at, left in enumerate(free) if left >= tensor), None)
        whole &= place is not None
        if place is not None:
            free[place] -= tensor
    assert not whole or all(len(group) == 1 for groups in layout for group in groups)


def test_names_and_the_order_of_nodes_change_nothing() -> None:
    one = cluster(box(A100, A100), box(V100, V100, V100), box(A100, A100, A100, A100))
    nodes = [node.model_copy(update={"node_id": f"other-{at}"}) for at, node in enumerate(reversed(one.nodes))]
    other = one.model_copy(update={"nodes": tuple(nodes)})
    shapes = [Shape((1, 1), 2), Shape((2, 0), 1)]
    assert Ground(one).links(shapes) == Ground(other).links(shapes)


def test_replicas_keep_their_order_and_kinds_their_devices() -> None:
    ground = Ground(cluster(box(A100, A100), box(V100, V100)))
    shares = [ReplicaShare(device_kind=kind, num_samples=1, micro_batch=1) for kind in (V100, A100, V100)]
    stage = StageStrategy(first_block=0, end_block=1, replicas=tuple(shares))
    (hardware,) = ground.hardware_of(Strategy(global_batch=3, stages=(stage,)))
    assert [speed.name for speed in hardware.speeds] == [V100, A100, V100]
    assert (hardware.links.data.size, hardware.links.data.num_nodes) == (3, 2)


def test_a_group_larger_than_a_node_spans_nodes() -> None:
    ground = Ground(cluster(box(*[A100] * 4), box(*[A100] * 4)))
    (links,) = ground.links([Shape((1,), 8)])
    assert (links.tensor.size, links.tensor.num_nodes) == (8, 2)
    assert links.tensor.across_bytes_per_s < links.tensor.inside_bytes_per_s
    (both,) = ground.links([Shape((1,), 4, context=2)])
    assert (both.tensor.num_nodes, both.context.num_nodes) == (1, 2)


def test_neighbours_share_what_leaves_a_node() -> None:
    """Of a node's two devices each gets half of its NIC when both talk to the other node."""
    ground = Ground(cluster(box(A100, A100), box(A100, A100)))
    alone = ground.links([Shape((2,), 2)])[0].data
    assert ground.links([Shape((4,), 1)])[0].data.across_bytes_per_s == 2 * alone.across_bytes_per_s


def test_a_kind_that_is_not_there_is_named() -> None:
    ground = Ground(cluster(box(A100)))
    share = ReplicaShare(device_kind=V100, num_samples=1, micro_batch=1)
    with pytest.raises(PlanError, match=f"1 devices of kind {V100}"):
        ground.shape_of(StageStrategy(first_block=0, end_block=1, replicas=(share,)))


def test_measured_groups_go_before_formulas_and_stand_in_for_unknown_wiring() -> None:
    devices = tuple(Device(type="cpu", index=index, memory_bytes=1 << 30) for index in range(3))
    bare = ClusterSpec(nodes=(Node.of("n0", devices),), origin="live")
    with pytest.raises(UserError, match="nothing tells"):
        Ground(bare).links([Shape((2,), 1)])
    measured = Measured(date="2026-11-22", emulated=False, curves=(curve(3),))
    ground = Ground(bare.model_copy(update={"measured": measured}))
    assert ground.links([Shape((3,), 1)])[0].data.curves == (curve(3),)
    two = ground.links([Shape((2,), 1)])[0].data
    assert two.curves == ()
    assert two.inside_bytes_per_s == pytest.approx(2 * 2 / 3 * 1e9)
