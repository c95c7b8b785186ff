"""The chain of blocks as numbers: every part of it that a stage may hold, by how many blocks of each sort it has. Pure.

Parts with equal counts cost the same, so a chain of 96 equal layers has a few hundred of them, not thousands.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heliostat.placement.workload import WorkloadProfile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Parts:
    """Some parts of a chain."""

    def __init__(self, counts: Floats) -> None:
        self.counts = counts
        """Of each part, blocks of each sort."""

    @cached_property
    def lengths(self) -> Floats:
        """Blocks of each part."""
        return np.asarray(self.counts.sum(axis=1))

    @cached_property
    def first_sorts(self) -> Ints:
        """The sort of each part's first block."""
        return np.asarray(np.argmax(self.counts > 0, axis=1), dtype=np.int64)

    @cached_property
    def last_sorts(self) -> Ints:
        """The sort of each part's last block."""
        last = self.counts.shape[1] - 1
        return np.asarray(last - np.argmax(self.counts[:, ::-1] > 0, axis=1), dtype=np.int64)

    @cached_property
    def copies(self) -> Floats:
        """1 for each part that has a copy of a tied embedding, if stages are before it: it ends the chain."""
        return np.asarray((self.counts[:, -1] > 0) & (self.counts[:, 0] == 0), dtype=np.float64)

    @cached_property
    def _mixtures(self) -> tuple[Bools, Ints]:
        """Which sorts there are together, and of each part which of these it is."""
        found, number = np.unique(self.counts > 0, axis=0, return_inverse=True)
        return found, np.asarray(number.reshape(-1), dtype=np.int64)

    def largest(self, values: Floats) -> Floats:
        """For each part the largest of `values` among the sorts it has; sorts are rows."""
        mixtures, number = self._mixtures
        by_mixture = np.array([values[sorts].max(axis=0) for sorts in mixtures])
        return np.asarray(by_mixture[number], dtype=np.float64)


class Chain(Parts):
    """A workload's parts, numbered."""

    def __init__(self, workload: WorkloadProfile) -> None:
        self.workload = workload
        self.blocks = workload.blocks
        self.num_blocks = workload.num_blocks
        self.sort_of = [sort for sort, block in enumerate(self.blocks) for _ in range(block.count)]
        before = np.zeros((self.num_blocks + 1, len(self.blocks)))
        for place, sort in enumerate(self.sort_of):
            before[place + 1] = before[place]
            before[place + 1, sort] += 1
        self.before = before
        """Blocks of each sort before each place."""
        self.opens: Bools = np.isin(np.arange(self.num_blocks + 1), (0, *workload.cuts, self.num_blocks))
        """Whether a stage may begin at each place; nothing begins at the last, where the chain ends."""
        self.openings: Ints = np.flatnonzero(self.opens)
        self.next_opening: Ints = self.openings[np.searchsorted(self.openings, np.arange(self.num_blocks + 1))]
        """Of each place, the first from there on where a stage may begin."""
        numbers: dict[tuple[float, ...], int] = {}
        self.part_of: Ints = np.full((self.num_blocks + 1, self.num_blocks + 1), -1, dtype=np.int64)
        """The number of the part from one place to another."""
        for first in range(self.num_blocks):
            for end in range(first + 1, self.num_blocks + 1):
                counts = tuple(before[end] - before[first])
                self.part_of[first, end] = numbers.setdefault(counts, len(numbers))
        super().__init__(np.array(list(numbers)))
        self.whole = Parts(before[-1:])
        """The whole chain alone."""
