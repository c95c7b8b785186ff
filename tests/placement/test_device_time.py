"""Operations: what alignment, waves and dtype cost."""

import pytest

from heliostat.placement.device_time import Degrees, alignment, estimate, product_time_s
from heliostat.placement.efficiency import speed_of
from heliostat.placement.workloads import Transformer, transformer

A100 = speed_of("A100-80GB-SXM")


def head_s(vocabulary: int, tensor: int) -> float:
    shape = Transformer(name="gpt", hidden=1024, layers=1, heads=16, seq_len=1024, vocabulary=vocabulary)
    found = estimate(transformer(shape).blocks[-1], Degrees(4, tensor), A100, "fp16")
    return found.forward_s + found.backward_s


def test_rows_of_less_than_16_bytes_alignment_are_slower() -> None:
    assert [alignment(n, 1024, 2) for n in (8, 24, 4096)] == [1.0] * 3
    rates = [alignment(n, 1024, 2) for n in (25128, 12564, 6282, 50257)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    assert rates[-1] < 0.4
    assert alignment(6282, 1024, 4) == pytest.approx(rates[1])


def test_an_odd_vocabulary_is_worth_padding_and_worth_halving() -> None:
    assert head_s(50257, 1) > 1.5 * head_s(50304, 1)
    assert head_s(50256, 2) < 0.4 * head_s(50257, 1)


def test_one_tile_more_than_the_multiprocessors_hold_costs_a_wave() -> None:
    rows, columns = 256 * 12, 128 * 9
    full, over = (product_time_s(rows + more, columns, 8192, 1, A100, "fp16") for more in (0, 256))
    assert rows * columns == 256 * 128 * A100.multiprocessors
    assert over > 1.1 * full


def test_a_thin_product_is_bound_by_memory() -> None:
    moved = 2 * (16 + 16 * 4096 + 4096)
    assert product_time_s(1, 4096, 16, 1, A100, "bf16") == pytest.approx(product_time_s(1, 4096, 16, 1, A100, "fp16"))
    assert product_time_s(1, 4096, 16, 1, A100, "bf16") >= moved / A100.memory_rate
