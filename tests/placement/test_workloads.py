"""Operation and parameter counts of the transformer family, against published ones."""

import pytest

from heliostat.placement.workloads import Transformer, transformer


def llama(name: str, hidden: int, layers: int, heads: int, feed_forward: int) -> Transformer:
    return Transformer(
        name=name, hidden=hidden, layers=layers, heads=heads, kv_heads=8, feed_forward=feed_forward, seq_len=8192,
        vocabulary=128256, gated=True, bias="none", norm="rms", positions="none", tied=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "num_parameters"),
    [
        (llama("8B", 4096, 32, 32, 14336), 8_030_261_248),
        (llama("70B", 8192, 80, 64, 28672), 70_553_706_496),
        (llama("405B", 16384, 126, 128, 53248), 405_853_388_800),
        (Transformer(name="MPT-125m", hidden=768, layers=12, heads=12, seq_len=2048, vocabulary=50368), 125_311_488),
        (Transformer(name="MPT-70b", hidden=8192, layers=80, heads=64, seq_len=2048, vocabulary=50368), 64_862_437_376),
    ],
    ids=lambda value: value.name if isinstance(value, Transformer) else "",
)
def test_parameters_are_those_of_the_published_models(shape: Transformer, num_parameters: int) -> None:
    assert transformer(shape).num_parameters == num_parameters


def test_gpt3_has_175_billion_parameters_and_the_flops_of_narayanan_2021() -> None:
    h, layers, s, v = 12288, 96, 2048, 51200
    gpt = Transformer(name="gpt3", hidden=h, layers=layers, heads=96, seq_len=s, vocabulary=v, attention="eager")
    workload = transformer(gpt)
    assert workload.num_parameters == pytest.approx(175e9, rel=0.005)
    # forward pass: a quarter of equation 3, which counts full recomputation; the head is not recomputed
    forward = 24 * s * layers * h * h * (1 + s / (6 * h)) + 2 * s * h * v
    assert workload.forward_flops == pytest.approx(forward, rel=1e-9)


def test_flash_attention_of_a_causal_model_skips_half_of_the_scores() -> None:
    shape = Transformer(name="x", hidden=1024, layers=1, heads=16, seq_len=2048, vocabulary=1000)
    attention = next(op for op in transformer(shape).blocks[1].ops if op.kind == "attention")
    assert attention.forward_flops == 2 * 2048 * 2048 * 1024
    whole = next(
        op for op in transformer(shape.model_copy(update={"causal": False})).blocks[1].ops if op.kind == "attention"
    )
    assert whole.forward_flops == 2 * attention.forward_flops


def test_grouped_queries_have_smaller_keys_and_values() -> None:
    full = Transformer(name="x", hidden=1024, layers=1, heads=16, seq_len=64, vocabulary=1000, bias="none")
    grouped = full.model_copy(update={"kv_heads": 4})
    assert transformer(full).num_parameters - transformer(grouped).num_parameters == 2 * 1024 * (1024 - 256)


def test_a_part_of_the_chain_counts_repetitions() -> None:
    workload = transformer(Transformer(name="x", hidden=64, layers=6, heads=2, seq_len=8, vocabulary=100))
    assert workload.num_blocks == 8
    assert [(block.name, count) for block, count in workload.part(0, 3)] == [("embedding", 1), ("layer", 2)]
    assert [(block.name, count) for block, count in workload.part(3, 8)] == [("layer", 4), ("head", 1)]
    assert type(workload).model_validate_json(workload.model_dump_json()) == workload
