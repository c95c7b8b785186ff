"""What the features are made with."""

import numpy as np
from numpy.typing import NDArray


def normalize(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring large values closer."""
    # a comment that may change
    return np.log1p(values)
