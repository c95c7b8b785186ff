"""Memory against Korthikanti et al. 2022 (equations 1 to 6, figure 1) and against what PyTorch's tracker counts."""

from collections.abc import Callable
from typing import Any

import pytest

from heliostat.placement.memory import MemoryUse, block_saved_bytes, replica_memory
from heliostat.placement.schedule import Schedule, StageTimes, simulate
from heliostat.placement.strategy import Execution, Recompute, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

GIB = 1 << 30
MEGATRON = Execution(dtype="fp16", keeps_gathered=False)


def gpt_to_track(hidden: int, layers: int, vocabulary: int, seq_len: int) -> Transformer:
    return Transformer(
        name="gpt", hidden=hidden, layers=layers, heads=hidden // 64, seq_len=seq_len, vocabulary=vocabulary, tied=False
    )


def gpt(hidden: int, layers: int, heads: int) -> Transformer:
    return Transformer(
        name="gpt", hidden=hidden, layers=layers, heads=heads, seq_len=2048, vocabulary=51200, attention="eager",
        dropout=True, loss="parallel", bias="fused",
    )  # fmt: skip


@pytest.mark.parametrize("tensor", [1, 8])
@pytest.mark.parametrize(
    ("recompute", "sequence_parallel", "formula"),
    [
        ("none", False, lambda t, core: 10 + 24 / t + core / t),
        ("none", True, lambda t, core: 34 / t + core / t),
        ("selective", False, lambda t, _: 10 + 24 / t),
        ("selective", True, lambda t, _: 34 / t),
        ("full", False, lambda *_: 2),
    ],
)
def test_a_layer_saves_what_the_published_formulas_say(
    recompute: Recompute,
    sequence_parallel: bool,  # noqa: FBT001
    formula: Callable[[int, float], float],
    tensor: int,
) -> None:
    s, b, h, a = 2048, 4, 6144, 64
    stage = StageStrategy(
        first_block=0,
        end_block=3,
        replicas=(ReplicaShare(device_kind="x", num_samples=b, micro_batch=b),),
        tensor_parallel=tensor,
        sequence_parallel=sequence_parallel,
        recompute=recompute,
    )
    layer = transformer(gpt(h, 48, a)).blocks[1]
    expected = s * b * h * formula(tensor, 5 * a * s / h)
    assert block_saved_bytes(layer, stage, b, MEGATRON) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "micro", "num_micro", "pipeline", "chunks", "recompute", "activation_gib"),
    [
        ((6144, 48, 64), 4, 1, 1, 1, "none", 59.25),
        ((12288, 96, 96), 1, 64, 8, 3, "none", 66.84),
        ((12288, 96, 96), 1, 64, 8, 3, "selective", 12.35),
        ((20480, 105, 128), 1, 280, 35, 3, "none", 114.02),
        ((20480, 105, 128), 1, 280, 35, 3, "selective", 23.08),
        ((25600, 128, 160), 1, 512, 64, 1, "none", 131.25),
        ((25600, 128, 160), 1, 512, 64, 1, "selective", 26.56),
    ],
)
def test_the_first_stage_holds_what_figure_1_shows(
    shape: tuple[int, int, int],
    micro: int,
    num_micro: int,
    pipeline: int,
    chunks: int,
    recompute: Recompute,
    activation_gib: float,
) -> None:
    layer = transformer(gpt(*shape)).blocks[1]
    stage = StageStrategy(
        first_block=0,
        end_block=3,
        replicas=(ReplicaShare(device_kind="x", num_samples=micro, micro_batch=micro),),
        tensor_parallel=8,
        sequence_parallel=recompute == "selective",
        recompute=recompute,
    )
    one = StageTimes(1.0, 2.0)
    schedule: Schedule = "interleaved" if chunks > 1 else "1f1b"
    held = simulate(schedule, [[one] * chunks] * pipeline, num_micro).in_flight[0] / chunks
    saved = held * shape[1] / pipeline * block_saved_bytes(layer, stage, micro, MEGATRON)
    assert saved / GIB == pytest.approx(activation_gib, rel=0.01)


def strategy(fields: dict[str, Any], replicas: int = 4, micro_batch: int = 1, num_micro_batches: int = 2) -> Strategy:
    """One stage, as FSDP2 would run it."""
    num_samples = micro_batch * num_micro_batches
    share = ReplicaShare(device_kind="x", num_samples=num_samples, micro_batch=micro_batch)
    execution = {"parameter_bytes": 4, "state_bytes": 8, **fields.pop("execution", {})}
    stage = StageStrategy.model_validate({"first_block": 0, "end_block": 26, "replicas": (share,) * replicas, **fields})
    return Strategy(global_batch=num_samples * replicas, stages=(stage,), execution=Execution.model_validate(execution))


def use_of(workload: WorkloadProfile, plan: Strategy, in_flight: int = 1) -> MemoryUse:
    return replica_memory(workload, plan, (in_flight,))[0][0]


TRACKED = [
    (gpt_to_track(768, 12, 50304, 1024), {"zero": 3}, 8, 1, 1_353_213_724),
    (gpt_to_track(768, 12, 50304, 1024), {"zero": 3, "recompute": "full"}, 8, 4, 3_298_981_660),
    (gpt_to_track(768, 12, 50304, 1024), {"zero": 3, "execution": {"dtype": "fp32"}}, 2, 1, 2_740_130_588),
    (gpt_to_track(2048, 4, 1024, 256), {"zero": 3}, 8, 1, 956_329_244),
    (gpt_to_track(2048, 4, 1024, 256), {"zero": 2, "recompute": "full"}, 64, 1, 669_985_052),
]
"""The bytes are those that `benchmarks/memory_fidelity.py` lets `FSDPMemTracker` of torch 2.13 count."""


@pytest.mark.parametrize(("shape", "fields", "replicas", "micro_batch", "tracked_bytes"), TRACKED)
def test_a_sharded_step_needs_what_the_tracker_counts(
    shape: Transformer, fields: dict[str, Any], replicas: int, micro_batch: int, tracked_bytes: int
) -> None:
    workload = transformer(shape)
    use = use_of(workload, strategy({"end_block": shape.layers + 2, **fields}, replicas, micro_batch))
    assert 0.99 < (use.total - use.reserve) / tracked_bytes < 1.05
    assert use.reserve > Execution().context_bytes


def test_each_level_of_zero_divides_one_more_part() -> None:
    workload = transformer(gpt(1024, 24, 16))
    n = workload.num_parameters
    for zero, parameters, gradients, states in ((0, 2, 4, 12), (1, 2, 4, 3), (2, 2, 1, 3), (3, 0.5, 1, 3)):
        use = use_of(workload, strategy({"zero": zero, "execution": {"parameter_bytes": 2, "state_bytes": 12}}))
        assert use.parameters == pytest.approx(parameters * n)
        assert use.gradients == pytest.approx(gradients * n)
        assert use.optimizer == pytest.approx(states * n)


def test_parameters_in_four_bytes_are_cast_to_compute() -> None:
    workload = transformer(gpt(1024, 24, 16))
    for dtype, by_zero in (("bf16", (6, 6, 3, 1)), ("fp32", (4, 4, 5, 1))):
        for zero, expected in enumerate(by_zero):
            use = use_of(workload, strategy({"zero": zero, "execution": {"dtype": dtype}}))
            assert use.parameters == pytest.approx(expected * workload.num_parameters)


def test_offload_leaves_the_optimizer_on_the_host() -> None:
    workload = transformer(gpt(1024, 24, 16))
    here, there = (use_of(workload, strategy({"offload": offload}, 1)) for offload in (False, True))
    assert there.optimizer == 0.0
    assert here.total - there.total >= here.optimizer == pytest.approx(8 * workload.num_parameters)


def test_the_optimizer_needs_room_when_activations_are_few() -> None:
    workload = transformer(gpt(1024, 24, 16).model_copy(update={"seq_len": 1, "attention": "flash"}))
    use = use_of(workload, strategy({}, 1))
    assert use.activations + use.temporary == pytest.approx(4 * workload.num_parameters)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("tensor", [1, 4])
def test_doing_more_to_save_memory_never_needs_more(recompute: str, tensor: int) -> None:
    workload = transformer(gpt(1024, 24, 16))

    def total(micro_batch: int = 2, in_flight: int = 1, **fields: Any) -> float:
        fields = {"recompute": recompute, "tensor_parallel": tensor, "zero": 3, **fields}
        return use_of(workload, strategy(fields, 4, micro_batch, 8), in_flight).total

    by_zero = [total(zero=zero, execution={"parameter_bytes": 2, "state_bytes": 12}) for zero in (0, 1, 2, 3)]
    assert by_zero == sorted(by_zero, reverse=True)
    by_recompute = [total(recompute=one) for one in ("none", "selective", "full")]
    assert by_recompute == sorted(by_recompute, reverse=True)
    assert total(micro_batch=1) < total(micro_batch=2) < total(micro_batch=3)
    by_tensor = [total(tensor_parallel=one, sequence_parallel=one > 1) for one in (1, 2, 4)]
    assert by_tensor == sorted(by_tensor, reverse=True)


def pipeline(num_micro_batches: int, cut: int = 13) -> Strategy:
    share = ReplicaShare(device_kind="x", num_samples=num_micro_batches, micro_batch=1)
    stages = [{"first_block": 0, "end_block": cut}, {"first_block": cut, "end_block": 26}]
    return Strategy.model_validate(
        {
            "global_batch": 2 * num_micro_batches,
            "schedule": "1f1b",
            "stages": [{"replicas": (share, share), "zero": 1, **stage} for stage in stages],
        }
    )


def test_buffers_are_those_of_the_micro_batches_in_flight() -> None:
    workload = transformer(gpt(1024, 24, 16))
    few, many = (replica_memory(workload, pipeline(count), (2, 1)) for count in (2, 128))
    assert few == many
    more = replica_memory(workload, pipeline(128), (3, 1))
    assert more[0][0].total > many[0][0].total
    assert more[1] == many[1]


def test_the_ranks_hold_every_state_and_a_second_table() -> None:
    workload = transformer(gpt(1024, 24, 16))
    uses = replica_memory(workload, pipeline(4), (2, 1))
    states = sum(use.optimizer for stage in uses for use in stage)
    assert states == pytest.approx(12 * (workload.num_parameters + workload.tied_parameters))
    assert workload.tied_parameters == 51200 * 1024
    first, last = (stage[0] for stage in uses)
    assert last.parameters > first.parameters - 2 * 2048 * 1024  # positions are with the first one only


def test_replicas_with_larger_micro_batches_need_more() -> None:
    workload = transformer(gpt(1024, 24, 16))
    shares = tuple(ReplicaShare(device_kind="x", num_samples=size, micro_batch=size) for size in (1, 3))
    stage = StageStrategy(first_block=0, end_block=26, replicas=shares)
    small, large = replica_memory(workload, Strategy(global_batch=4, stages=(stage,)), (1,))[0]
    assert large.activations == pytest.approx(3 * small.activations)
    assert large.parameters == small.parameters


def test_gathered_inputs_stay_whole_unless_they_are_gathered_again() -> None:
    layer = transformer(gpt(6144, 48, 64)).blocks[1]
    stage = strategy({"tensor_parallel": 8, "sequence_parallel": True}).stages[0]
    again = block_saved_bytes(layer, stage, 1, MEGATRON)
    whole = block_saved_bytes(layer, stage, 1, Execution(dtype="fp16"))
    assert whole - again == pytest.approx(2 * 2 * 2048 * 6144 * 7 / 8)
