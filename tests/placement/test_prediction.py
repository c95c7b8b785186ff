"""The cost model as a whole: properties, round trips and clear errors."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.errors import PlanError
from heliostat.placement.collective_time import GroupLinks, collective_s
from heliostat.placement.device_time import Degrees, estimate
from heliostat.placement.efficiency import fitted, speed_of
from heliostat.placement.prediction import Prediction, predict
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

GPT = transformer(Transformer(name="gpt", hidden=2048, layers=8, heads=16, seq_len=1024, vocabulary=50304))


def cluster(num_nodes: int = 2, kind: str = "A100-80GB-SXM", *, speed: float = 1.0, factor: float = 1.0) -> ClusterSpec:
    """Nodes of four devices: `factor` times the usual bandwidth, NVLink inside and 100 Gbit/s for each outside."""
    one = builtin().find(kind)
    link = LinkClass(kind=LinkKind.NVLINK, num_links=12)
    machine = Machine(
        name="box",
        devices=tuple(Device(type=kind, index=index, memory_bytes=one.memory_bytes or 1) for index in range(4)),
        topology=NodeTopology(
            source="test",
            devices=tuple(TopologyDevice(name=f"GPU{index}", index=index) for index in range(4)),
            nics=tuple(Nic(name=f"n{at}", label=f"n{at}", bits_per_s=int(factor * 100e9)) for at in range(4)),
            links=tuple(Connection(a=f"GPU{a}", b=f"GPU{b}", link=link) for a in range(4) for b in range(a + 1, 4)),
        ),
        figures={"NV12": Link(latency_s=3.4e-6, bytes_per_s=factor * 240e9)},
    )
    nodes = tuple(Node(node_id=f"n{number}", machine=machine, speeds=(speed,) * 4) for number in range(num_nodes))
    return ClusterSpec(nodes=nodes, origin="file")


def plan(stages: int = 1, tensor: int = 1, replicas: int = 1, **fields: Any) -> Strategy:
    share = ReplicaShare(device_kind=fields.pop("kind", "A100-80GB-SXM"), num_samples=8, micro_batch=1)
    ends = [GPT.num_blocks * (number + 1) // stages for number in range(stages)]
    return Strategy(
        global_batch=8 * replicas,
        stages=tuple(
            StageStrategy(
                first_block=first, end_block=end, replicas=(share,) * replicas, tensor_parallel=tensor, **fields
            )
            for first, end in zip([0, *ends[:-1]], ends, strict=True)
        ),
        schedule="none" if stages == 1 else "1f1b",
    )


PLANS = [plan(), plan(2), plan(1, 4, 2), plan(2, 2, 2), plan(4, 1, 2), plan(1, 1, 8, zero=3), plan(1, 2, 4, zero=1)]


@pytest.mark.parametrize("strategy", PLANS)
def test_parts_add_up_and_the_prediction_round_trips(strategy: Strategy) -> None:
    found = predict(GPT, cluster(), strategy)
    assert Prediction.model_validate_json(found.model_dump_json()) == found
    assert Strategy.model_validate_json(strategy.model_dump_json()) == strategy
    assert found.low_s < found.step_time_s < found.high_s
    assert len(found.memory_bytes) == strategy.num_ranks
    slowest = max(sum(stage.seconds.values()) for stage in found.stages)
    assert slowest == pytest.approx(found.step_time_s, rel=0.02)


@pytest.mark.parametrize("strategy", PLANS)
def test_more_bandwidth_is_never_slower(strategy: Strategy) -> None:
    slow, fast = (predict(GPT, cluster(factor=factor), strategy).step_time_s for factor in (1.0, 3.0))
    assert fast <= slow


def test_a_slower_device_takes_proportionally_longer() -> None:
    free = fitted().shared.model_copy(update={"forward_launch_s": 0.0, "backward_launch_s": 0.0})
    constants = fitted().model_copy(update={"shared": free})
    whole = predict(GPT, cluster(), plan(), constants).step_time_s
    kind = "A100-80GB-SXM@0.50"
    half = predict(GPT, cluster(speed=0.5), plan(kind=kind), constants).step_time_s
    assert half == pytest.approx(2 * whole, rel=0.02)


def test_too_few_devices_are_named() -> None:
    with pytest.raises(PlanError, match="wants 16 devices of kind A100-80GB-SXM"):
        predict(GPT, cluster(), plan(1, 4, 4))


def test_a_strategy_must_be_whole() -> None:
    share = ReplicaShare(device_kind="x", num_samples=3, micro_batch=1)
    stage = StageStrategy(first_block=1, end_block=2, replicas=(share,))
    with pytest.raises(ValueError, match="must begin at block 0"):
        Strategy(global_batch=3, stages=(stage,))
    with pytest.raises(ValueError, match="share 3 of 4"):
        Strategy(global_batch=4, stages=(stage.model_copy(update={"first_block": 0}),))


@settings(max_examples=50, deadline=None)
@given(size=st.floats(1.0, 1e10), ranks=st.sampled_from([2, 4, 8, 64]), nodes=st.sampled_from([1, 2]))
def test_collectives_grow_with_size_and_shrink_with_bandwidth(size: float, ranks: int, nodes: int) -> None:
    group = GroupLinks(
        size=ranks, num_nodes=nodes, inside_bytes_per_s=240e9, across_bytes_per_s=96e9, inside_latency_s=3e-6,
        across_latency_s=14e-6,
    )  # fmt: skip
    faster = group.model_copy(update={"inside_bytes_per_s": 480e9, "across_bytes_per_s": 200e9})
    for operation in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"):
        seconds = collective_s(operation, size, group)
        assert seconds <= collective_s(operation, 2 * size, group)
        assert collective_s(operation, size, faster) <= seconds
    assert collective_s("all_gather", size, group) <= collective_s("all_reduce", size, group)


def test_the_all_reduce_of_eight_a100_is_near_what_was_measured() -> None:
    """VIA-Research/vTrain, trace/: 1 MiB 93 us, 16 MiB 232 us, 1 GiB 8193 us."""
    group = GroupLinks(size=8, inside_bytes_per_s=240e9, inside_latency_s=3.4e-6)
    for num_bytes, seconds in ((1 << 20, 93e-6), (1 << 24, 232e-6), (1 << 30, 8193e-6)):
        assert collective_s("all_reduce", num_bytes, group) == pytest.approx(seconds, rel=0.2)


def test_a_block_is_faster_on_a_faster_device_and_divided_by_tensor_parallelism() -> None:
    layer = GPT.blocks[1]
    a100, h100 = speed_of("A100-80GB-SXM"), speed_of("H100-80GB-SXM")
    whole, half = (estimate(layer, Degrees(4, tensor), a100, "bf16") for tensor in (1, 2))
    assert estimate(layer, Degrees(4), h100, "bf16").forward_s < whole.forward_s
    assert 0.4 * whole.forward_s < half.forward_s < whole.forward_s
    assert whole.backward_s > whole.forward_s > whole.selective_s > 0
