import numpy as np

from heliostat.train.memory import PeakMemory


def test_memory_that_was_given_back_still_counts() -> None:
    np.ones(4_000_000)  # before: 32 MB that must not count
    memory = PeakMemory()
    block = np.ones(8_000_000)
    del block
    assert 60e6 < memory.added_bytes() < 75e6
