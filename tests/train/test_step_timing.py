import pytest

from heliostat.placement.workloads import Transformer, transformer
from heliostat.train.step_timing import StepTiming, with_timings


def test_a_measured_step_is_divided_over_the_blocks_without_a_rest() -> None:
    shape = Transformer(name="gpt", hidden=64, layers=3, heads=4, seq_len=16, vocabulary=100)
    timing = StepTiming(micro_batch_s=0.5, sample_s=0.1, optimizer_s=0.2)
    found = with_timings(transformer(shape), {"cpu": timing}, 0.01)
    assert found.gang_overhead_s == 0.01
    for micro_batch in (1, 7):
        passes = sum(block.count * sum(block.timings[0].pass_s(micro_batch)) for block in found.blocks)
        assert passes == pytest.approx(0.5 + 0.1 * micro_batch)
    updates = [block.timings[0].update_s or 0.0 for block in found.blocks]
    assert sum(block.count * one for block, one in zip(found.blocks, updates, strict=True)) == pytest.approx(0.2)
