"""Plans in words."""

import pytest

from heliostat.placement.view.words import (
    blocks_in_words,
    change_in_words,
    gib,
    large,
    seconds,
    split_in_words,
    strategy_in_words,
)
from tests.placement.view.plans import JOB, strategy, uneven


def test_blocks_are_named_and_counted() -> None:
    split = strategy()
    told = [blocks_in_words(JOB.workload, stage, split) for stage in split.stages]
    assert told == ["embedding, layers 1-15", "layers 16-30", "layers 31-36", "layers 37-40, head"]
    chunked = strategy(schedule="interleaved", chunks=2)
    assert blocks_in_words(JOB.workload, chunked.stages[0], chunked) == "embedding, 15 layers in 2 parts"


def test_a_plan_fits_into_a_line() -> None:
    told = strategy_in_words(JOB.workload, strategy())
    assert told.startswith("2 x [15 layers on 8 x A100-40GB-SXM (2 replicas, tensor parallel 4)] | 6 layers on")
    assert told.endswith("; 1F1B, micro-batch 2")
    assert strategy_in_words(JOB.workload, uneven()) == (
        "16 x A100-40GB-SXM + 16 x V100-32GB-SXM (32 replicas, ZeRO 3, full recomputation); micro-batch 1"
    )
    assert split_in_words(strategy(offload=True, zero=1).stages[0]) == (
        "2 replicas, tensor parallel 4, ZeRO 1, optimizer on the host"
    )


def test_small_changes_are_told_instead_of_the_plan() -> None:
    best = strategy()
    assert change_in_words(best, best) is None
    assert change_in_words(best, strategy(zero=1)) == "ZeRO 1 in stages 0, 1, 2, 3"
    assert change_in_words(best, strategy(schedule="gpipe", recompute="full")) == (
        "GPipe and full recomputation in stages 0, 1, 2, 3"
    )
    assert change_in_words(best, strategy(micro_batch=1)) == "micro-batch 1 in stages 0, 1, 2, 3"
    assert change_in_words(best, strategy(tensor=2)) is None
    assert change_in_words(best, uneven()) is None


@pytest.mark.parametrize(
    ("value", "words"), [(1234.0, "1,234 s"), (12.34, "12.3 s"), (0.0456, "45.6 ms"), (4e-6, "4 us")]
)
def test_seconds(value: float, words: str) -> None:
    assert seconds(value) == words


def test_sizes() -> None:
    assert gib(3.5 * (1 << 30)) == "3.5 GiB"
    assert (large(12.9e9), large(42164), large(3.2e6)) == ("12.9 billion", "42,164", "3.2 million")
