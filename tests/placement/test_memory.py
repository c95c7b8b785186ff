"""Memory against Korthikanti et al. 2022 (equations 1 to 6, figure 1), and against measured sharded runs."""

from collections.abc import Callable

import pytest

from heliostat.placement.memory import block_saved_bytes, rank_memory, replica_memory
from heliostat.placement.schedule import Schedule, StageTimes, simulate
from heliostat.placement.strategy import Execution, Recompute, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

GIB = 1 << 30


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
    assert block_saved_bytes(layer, stage, b, Execution(dtype="fp16")) == pytest.approx(expected)


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
    saved = held * shape[1] / pipeline * block_saved_bytes(layer, stage, micro, Execution(dtype="fp16"))
    assert saved / GIB == pytest.approx(activation_gib, rel=0.01)


def strategy(zero: int, replicas: int, **execution: object) -> Strategy:
    share = ReplicaShare(device_kind="x", num_samples=1, micro_batch=1)
    stage = StageStrategy.model_validate(
        {"first_block": 0, "end_block": 26, "replicas": (share,) * replicas, "zero": zero}
    )
    return Strategy(
        global_batch=replicas, stages=(stage,), execution=Execution.model_validate({"dtype": "bf16", **execution})
    )


def test_each_level_of_zero_divides_one_more_part() -> None:
    workload = transformer(gpt(1024, 24, 16))
    n = workload.num_parameters
    for zero, parameters, gradients, states in ((0, 2, 4, 12), (1, 2, 4, 3), (2, 2, 1, 3), (3, 0.5, 1, 3)):
        plan = strategy(zero, 4)
        use = rank_memory(workload, plan, plan.stages[0], plan.stages[0].replicas[0], 1)
        assert use.parameters == pytest.approx(parameters * n)
        assert use.gradients == pytest.approx(gradients * n)
        assert use.optimizer == pytest.approx(states * n)


def test_offload_leaves_the_optimizer_on_the_host() -> None:
    workload, plan = transformer(gpt(1024, 24, 16)), strategy(0, 1)
    moved = plan.model_copy(update={"stages": (plan.stages[0].model_copy(update={"offload": True}),)})
    here, there = (replica_memory(workload, one, (1,))[0][0] for one in (plan, moved))
    assert there.optimizer == 0.0
    assert here.total - there.total == pytest.approx(12 * workload.num_parameters)
