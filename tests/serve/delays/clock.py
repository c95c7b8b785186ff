"""A helper that nobody names in the experiment."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUTES_PER_HOUR = 60


def hours(hhmm: NDArray[np.float64]) -> NDArray[Any]:
    """Hours after midnight of times written as HHMM."""
    return hhmm // 100 + hhmm % 100 / MINUTES_PER_HOUR
