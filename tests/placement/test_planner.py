"""The data-parallel planner against brute force and against its own promises."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device
from heliostat.cluster.measured import Curve, GroupShape, Measured, Sample
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlanError
from heliostat.placement.plan import ParallelPlan
from heliostat.placement.planner import Constraints, balanced_shares, plan
from heliostat.placement.workload import BlockProfile, StepTiming, WorkloadProfile

GIB = 1 << 30


def workload(timings: dict[str, StepTiming], saved_bytes: float = 1000.0) -> WorkloadProfile:
    block = BlockProfile(
        name="mlp", num_parameters=10_000, forward_flops=2e4, backward_flops=4e4, saved_bytes=saved_bytes
    )
    return WorkloadProfile(name="model", blocks=(block,), timings=timings)


def cluster(*speeds: float, latency_s: float = 1e-3, memory_bytes: int = GIB) -> ClusterSpec:
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


def timing(sample_s: float, micro_batch_s: float = 0.0, optimizer_s: float = 0.0) -> StepTiming:
    return StepTiming(micro_batch_s=micro_batch_s, sample_s=sample_s, optimizer_s=optimizer_s)


TWO_KINDS = {"cpu": timing(1e-3), "cpu@0.50": timing(2e-3)}


def shares(result: ParallelPlan) -> dict[str, int]:
    return {replica.device_kind: replica.num_samples for replica in result.stages[0].replicas}


def test_a_device_half_as_fast_gets_half_the_samples() -> None:
    result = plan(workload(TWO_KINDS), cluster(1.0, 0.5), Constraints(global_batch=90))
    assert shares(result) == {"cpu": 60, "cpu@0.50": 30}
    assert result.prediction.step.compute_s == pytest.approx(0.06)


def test_slow_links_make_one_device_the_better_plan_and_the_loser_is_explained() -> None:
    result = plan(workload(TWO_KINDS), cluster(1.0, 0.5, latency_s=1.0), Constraints(global_batch=90))
    assert result.num_ranks == 1
    assert result.refused[0].candidate == "2 replicas"
    assert "synchronisation 1000.0" in result.refused[0].reason


def test_a_measured_gang_counts_more_than_the_link() -> None:
    measured = workload(TWO_KINDS).model_copy(update={"gang_overhead_s": 0.002})
    two = plan(measured, cluster(1.0, 0.5, latency_s=1.0), Constraints(global_batch=90))
    assert two.num_ranks == 2
    assert two.prediction.step.sync_s == 0.002
    one = plan(measured, cluster(1.0), Constraints(global_batch=90))
    assert one.prediction.step.sync_s == 0


def test_pins_are_kept() -> None:
    pinned = Constraints(global_batch=90, data_parallel=1, micro_batch=20)
    replica = plan(workload(TWO_KINDS), cluster(1.0, 0.5), pinned).stages[0].replicas[0]
    assert (replica.num_samples, replica.micro_batch, replica.num_micro_batches) == (90, 20, 5)


def test_too_many_replicas_asked_for() -> None:
    with pytest.raises(PlanError, match=r"plan\.data_parallel asks for 3"):
        plan(workload(TWO_KINDS), cluster(1.0, 0.5), Constraints(global_batch=90, data_parallel=3))


def test_a_model_that_fits_nowhere_says_what_is_missing() -> None:
    with pytest.raises(PlanError, match=r"one sample needs .* bytes on cpu"):
        plan(workload(TWO_KINDS), cluster(1.0, 0.5, memory_bytes=1000), Constraints(global_batch=8))


def test_micro_batches_shrink_to_fit_memory() -> None:
    states = 16 * 10_000  # parameters, gradients and two moments in fp32
    result = plan(workload(TWO_KINDS), cluster(1.0, memory_bytes=states + 10_500), Constraints(global_batch=90))
    assert result.stages[0].replicas[0].micro_batch == 10
    assert max(result.prediction.memory_bytes) <= states + 10_500


def test_no_device() -> None:
    with pytest.raises(PlanError, match="no free device"):
        plan(workload(TWO_KINDS), ClusterSpec(nodes=(), origin="emulated"), Constraints(global_batch=8))


@given(
    st.lists(st.tuples(st.floats(1e-4, 1e-2), st.floats(0, 1e-2)), min_size=1, max_size=3),
    st.integers(min_value=3, max_value=18),
)
def test_shares_are_optimal(lines: list[tuple[float, float]], total: int) -> None:
    """No division of the samples finishes more than one sample's time earlier."""
    timings = [timing(sample_s, optimizer_s=fixed_s) for sample_s, fixed_s in lines]

    def finish_s(division: tuple[int, ...]) -> float:
        return max(t.compute_s(num_micro_batches=1, num_samples=n) for t, n in zip(timings, division, strict=True))

    divisions = [d for d in itertools.product(range(1, total + 1), repeat=len(timings)) if sum(d) == total]
    best_s = min(map(finish_s, divisions))
    chosen = balanced_shares(timings, total, [total] * len(timings))
    assert sum(chosen) == total
    assert finish_s(tuple(chosen)) <= best_s * (1 + 1e-9)


@given(st.floats(0.1, 10))
def test_scaling_all_speeds_scales_compute_and_keeps_the_division(factor: float) -> None:
    slower = {kind: timing(t.sample_s * factor) for kind, t in TWO_KINDS.items()}
    constraints = Constraints(global_batch=90, data_parallel=2)
    before = plan(workload(TWO_KINDS), cluster(1.0, 0.5), constraints)
    after = plan(workload(slower), cluster(1.0, 0.5), constraints)
    assert after.prediction.step.compute_s == pytest.approx(factor * before.prediction.step.compute_s, rel=0.05)


def test_json_round_trip() -> None:
    result = plan(workload(TWO_KINDS), cluster(1.0, 0.5), Constraints(global_batch=90))
    assert ParallelPlan.model_validate_json(result.model_dump_json()) == result
