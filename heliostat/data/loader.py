"""The order in which a run sees its rows: a function of seed and step, and of nothing else.

Whatever the plan, step s trains on the same global batch; every rank takes its own part of it. A run that stops at a
step and goes on with other ranks therefore repeats no row and skips none, and its whole state is the step number.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heliostat.errors import DataError


@dataclass(frozen=True, kw_only=True)
class GlobalBatches:
    """Global batches of row indices: each epoch is one permutation of the rows, its incomplete last batch left out.

    Raises:
        DataError: there are fewer rows than one global batch.
    """

    num_rows: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_steps_per_epoch == 0:
            raise DataError(
                f"the global batch of {self.global_batch} is larger than the train split",
                got=f"{self.num_rows} rows",
                next_step=f"set train.global_batch to at most {self.num_rows}",
            )

    @property
    def num_steps_per_epoch(self) -> int:
        """Complete global batches in one pass over the rows."""
        return self.num_rows // self.global_batch

    def indices(self, step: int) -> NDArray[np.int64]:
        """The rows of global batch `step`, counted from 0 over all epochs: int64 (global_batch,)."""
        epoch, position = divmod(step, self.num_steps_per_epoch)
        start = position * self.global_batch
        return _permutation(self.num_rows, self.seed, epoch)[start : start + self.global_batch]


@lru_cache(maxsize=2)
def _permutation(num_rows: int, seed: int, epoch: int) -> NDArray[Any]:
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    order.setflags(write=False)
    return order
