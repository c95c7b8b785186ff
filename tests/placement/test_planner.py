"""The planner on devices whose steps were measured: shares by speed, pins, and clear refusals."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device
from heliostat.cluster.measured import Curve, GroupShape, Measured, Sample
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.planner import plan
from heliostat.placement.prediction import predict
from heliostat.placement.strategy import Execution
from heliostat.placement.timing import BlockTiming, PassSample
from heliostat.placement.workload import Block, Op, SavedActivations, WorkloadProfile

GIB = 1 << 30
EXECUTION = Execution(dtype="fp32", accumulate_bytes=4, parameter_bytes=4, state_bytes=8.0)


def timing(kind: str, sample_s: float, micro_batch_s: float = 0.0, update_s: float = 0.0) -> BlockTiming:
    """Seconds per sample and per micro-batch, forward and backward together."""
    samples = tuple(
        PassSample(micro_batch=size, forward_s=0.0, backward_s=micro_batch_s + size * sample_s) for size in (1, 2)
    )
    return BlockTiming(device_kind=kind, samples=samples, update_s=update_s)


def workload(*timings: BlockTiming, saved_bytes: float = 1000.0, overhead_s: float | None = None) -> WorkloadProfile:
    block = Block(
        name="mlp",
        num_parameters=10_000,
        ops=(Op(name="linear", kind="matmul", n=100, k=100),),
        saved=SavedActivations(replicated=0.0, split=saved_bytes / 2),
        boundary_elements=1,
        timings=timings,
    )
    return WorkloadProfile(name="model", blocks=(block,), gang_overhead_s=overhead_s)


def cluster(*speeds: float, latency_s: float = 1e-3, memory_bytes: int = 8 * GIB) -> ClusterSpec:
    devices = tuple(
        Device(type="cpu", index=index, memory_bytes=memory_bytes, speed=speed) for index, speed in enumerate(speeds)
    )
    curves = tuple(all_reduce(num_ranks, latency_s) for num_ranks in range(2, len(speeds) + 1))
    measured = Measured(date="2026-11-22", emulated=True, curves=curves)
    return ClusterSpec(nodes=(Node.of("n0", devices),), origin="emulated", measured=measured)


def all_reduce(num_ranks: int, latency_s: float) -> Curve:
    return Curve(
        operation="all_reduce",
        group=GroupShape(num_ranks=num_ranks, num_nodes=1, device_type="cpu", link="host"),
        samples=(Sample(num_bytes=1, seconds=latency_s, spread=0),),
        line=Link(latency_s=latency_s, bytes_per_s=1e9),
    )


def wanted(global_batch: int = 90, **pins: object) -> Constraints:
    fixed = {"num_stages": 1, "zero": 0, "recompute": "none", "offload": False, **pins}
    return Constraints(global_batch=global_batch, execution=EXECUTION, pins=Pins.model_validate(fixed))


TWO_KINDS = (timing("cpu", 1e-3), timing("cpu@0.50", 2e-3))


def shares(result: ParallelPlan) -> dict[str, int]:
    return {replica.device_kind: replica.num_samples for replica in result.stages[0].replicas}


def test_a_device_half_as_fast_gets_half_the_samples() -> None:
    result = plan(workload(*TWO_KINDS), cluster(1.0, 0.5), wanted())
    assert shares(result) == {"cpu": 60, "cpu@0.50": 30}
    assert result.prediction.stages[0].seconds["compute"] == pytest.approx(0.06)
    assert "1 x cpu + 1 x cpu@0.50 (2 replicas)" in result.reason


def test_slow_links_make_one_device_the_better_plan_and_the_loser_is_kept() -> None:
    result = plan(workload(*TWO_KINDS), cluster(1.0, 0.5, latency_s=1.0), wanted())
    assert result.num_ranks == 1
    other = next(one for one in result.runners_up if one.strategy.num_ranks == 2)
    assert other.prediction.stages[0].seconds["sync"] == pytest.approx(1.0, rel=0.05)


def test_a_measured_gang_counts_more_than_the_link() -> None:
    measured = workload(*TWO_KINDS, overhead_s=0.002)
    two = plan(measured, cluster(1.0, 0.5, latency_s=1.0), wanted())
    assert two.num_ranks == 2
    assert two.prediction.stages[0].seconds["sync"] == 0.002
    one = plan(measured, cluster(1.0), wanted())
    assert one.prediction.stages[0].seconds["sync"] == 0


def test_what_a_micro_batch_costs_makes_them_few() -> None:
    costly = (timing("cpu", 1e-3, 0.01), timing("cpu@0.50", 2e-3, 0.02))
    result = plan(workload(*costly), cluster(1.0, 0.5), wanted())
    assert [replica.num_micro_batches for replica in result.stages[0].replicas] == [1, 1]
    assert shares(result) == {"cpu": 63, "cpu@0.50": 27}


def test_pins_are_kept() -> None:
    result = plan(workload(*TWO_KINDS), cluster(1.0, 0.5), wanted(data_parallel=1, micro_batch=20))
    (replica,) = result.stages[0].replicas
    assert (replica.num_samples, replica.micro_batch, replica.num_micro_batches) == (90, 20, 5)
    assert result.prediction.step_time_s == pytest.approx(0.09)


def test_too_many_replicas_asked_for() -> None:
    with pytest.raises(PlanError, match="data_parallel 3 needs 3 devices, there are 2"):
        plan(workload(*TWO_KINDS), cluster(1.0, 0.5), wanted(data_parallel=3))


def test_a_model_that_fits_nowhere_says_what_is_missing() -> None:
    with pytest.raises(PlanError, match=r"(?s)no plan fits.*lacks .* GiB"):
        plan(workload(*TWO_KINDS), cluster(1.0, 0.5, memory_bytes=1000), wanted(8))


def test_micro_batches_shrink_to_fit_memory() -> None:
    large = workload(timing("cpu", 1e-3, 0.01), saved_bytes=GIB / 10)
    result = plan(large, cluster(1.0, memory_bytes=4 * GIB), wanted())
    (replica,) = result.stages[0].replicas
    assert 10 <= replica.micro_batch < 40
    assert max(result.prediction.memory_bytes) <= 4 * GIB


def test_no_device() -> None:
    with pytest.raises(PlanError, match="no devices"):
        plan(workload(*TWO_KINDS), ClusterSpec(nodes=(), origin="emulated"), wanted())


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.tuples(st.floats(1e-4, 1e-2), st.floats(0, 1e-2)), min_size=1, max_size=3),
    total=st.integers(min_value=3, max_value=18),
)
def test_shares_are_within_a_sample_of_the_best(lines: list[tuple[float, float]], total: int) -> None:
    """No division of the samples in one micro-batch each ends more than one sample's time earlier."""
    speeds = [round(1 - 0.1 * number, 1) for number in range(len(lines))]
    kinds = ["cpu" if speed == 1.0 else f"cpu@{speed:.2f}" for speed in speeds]
    timings = [timing(kind, *line) for kind, line in zip(kinds, lines, strict=True)]
    result = plan(workload(*timings, overhead_s=0.0), cluster(*speeds), wanted(total, data_parallel=len(lines)))

    def end_s(division: tuple[int, ...]) -> float:
        return max(fixed + n * each for n, (each, fixed) in zip(division, lines, strict=True))

    divisions = [d for d in itertools.product(range(1, total + 1), repeat=len(lines)) if sum(d) == total]
    assert sum(shares(result).values()) == total
    assert result.prediction.step_time_s <= min(map(end_s, divisions)) + max(each for each, _ in lines) + 1e-12


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 10))
def test_scaling_all_speeds_scales_compute_and_keeps_the_division(factor: float) -> None:
    slower = [timing(one.device_kind, factor * one.samples[0].backward_s) for one in TWO_KINDS]
    before = plan(workload(*TWO_KINDS), cluster(1.0, 0.5), wanted(data_parallel=2))
    after = plan(workload(*slower), cluster(1.0, 0.5), wanted(data_parallel=2))
    ours, theirs = (one.prediction.stages[0].seconds["compute"] for one in (before, after))
    assert theirs == pytest.approx(factor * ours, rel=0.05)


def test_a_plan_says_what_predict_says_and_round_trips() -> None:
    model, devices = workload(*TWO_KINDS), cluster(1.0, 0.5)
    result = plan(model, devices, wanted())
    assert predict(model, devices, result.strategy) == result.prediction
    assert ParallelPlan.model_validate_json(result.model_dump_json()) == result
