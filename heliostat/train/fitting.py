"""Lines through noisy times, and for how long to go on measuring."""

import time
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
from scipy.optimize import nnls

MIN_ROUNDS = 5


def fit_line(sizes: Sequence[int], times_s: Sequence[float]) -> tuple[float, float]:
    """`time = fixed + size * slope` with neither negative: least squares of the relative errors."""
    times = np.asarray(times_s)
    rows = np.stack([1 / times, np.asarray(sizes) / times], axis=1)
    (fixed_s, slope_s), _ = nnls(rows, np.ones(len(times)))
    return float(fixed_s), float(slope_s)


def rounds_until(budget_s: float) -> Iterator[int]:
    """Round numbers until the time is up, a few at least; round 0 is for warming up."""
    yield 0
    deadline = time.monotonic() + budget_s
    for number in count(1):
        if number > MIN_ROUNDS and time.monotonic() > deadline:
            return
        yield number
