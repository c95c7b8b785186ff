import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.loader import GlobalBatches
from heliostat.errors import DataError


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_shows_every_row_once_but_the_tail(num_rows: int, global_batch: int, seed: int) -> None:
    global_batch = min(global_batch, num_rows)
    batches = GlobalBatches(num_rows=num_rows, global_batch=global_batch, seed=seed)
    seen = np.concatenate([batches.indices(step) for step in range(batches.num_steps_per_epoch)])
    assert len(set(seen.tolist())) == len(seen) == num_rows // global_batch * global_batch


def test_the_order_is_a_function_of_seed_and_step() -> None:
    batches = GlobalBatches(num_rows=100, global_batch=10, seed=7)
    order = [batches.indices(step).tolist() for step in range(30)]
    again = GlobalBatches(num_rows=100, global_batch=10, seed=7)
    assert [again.indices(step).tolist() for step in reversed(range(30))] == order[::-1]
    assert order[0] != order[10] != order[20]
    assert GlobalBatches(num_rows=100, global_batch=10, seed=8).indices(0).tolist() != order[0]


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(DataError, match="global batch of 11 is larger than the train split") as caught:
        GlobalBatches(num_rows=10, global_batch=11, seed=0)
    assert caught.value.next_step == "set train.global_batch to at most 10"
