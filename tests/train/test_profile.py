from pathlib import Path

import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure
from heliostat.train.profile import OUTSIDE, profile

TOY = f"{Path(__file__).parent / 'toy.py'}:Toy"


def test_blocks_hold_what_the_model_holds(toy_data: DatasetVersion) -> None:
    workload = profile(TOY, toy_data, {"width": 16})
    first, tanh, _, head, outside = workload.blocks
    assert workload.name == "Toy"
    assert [block.num_parameters for block in workload.blocks] == [4 * 16 + 16, 0, 0, 17, 0]
    assert first.forward_flops == 2 * 4 * 16
    assert head.forward_flops == 2 * 16
    weights, inputs = 2 * 4 * 16 + 2 * 16, 2 * 16  # the rows themselves need no gradient
    assert workload.flops_per_sample == 2 * 4 * 16 + 2 * 16 + weights + inputs
    assert outside.name == OUTSIDE
    assert outside.forward_flops == 0
    assert first.saved_bytes == 4 * 4  # the rows
    assert tanh.saved_bytes == 4 * 16  # its result, which the head saves again
    assert head.saved_bytes == 0


def test_equal_neighbours_are_one_block_with_a_count(toy_data: DatasetVersion) -> None:
    workload = profile(TOY, toy_data, {"fault": "deep", "width": 8})
    assert [(block.name, block.count) for block in workload.blocks][1:3] == [("1", 5), ("6", 1)]
    assert workload.num_parameters == (4 * 8 + 8) + 5 * (8 * 8 + 8) + 9


def test_a_loss_that_looks_at_values_is_counted_on_the_cpu(toy_data: DatasetVersion) -> None:
    assert profile(TOY, toy_data, {"fault": "experts"}).num_parameters == 10


def test_a_broken_loss_is_the_users_to_see(toy_data: DatasetVersion) -> None:
    with pytest.raises(TrainingFailure, match="must return"):
        profile(TOY, toy_data, {"fault": "mean"})
