"""Which blocks a stage may hold on which shape, by `Pins.cuts`, `Pins.parts` and `Block.opens_stage`. Pure."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from heliostat.placement.constraints import Pins
from heliostat.placement.ground import Shape
from heliostat.placement.search.chain import Bools, Chain
from heliostat.placement.workload import WorkloadProfile


class Allowed:
    """The pins of single blocks, as tables over the parts of a chain: first block by end."""

    def __init__(self, chain: Chain, kinds: tuple[str, ...], pins: Pins) -> None:
        """Prepare.

        Args:
            chain: of blocks.
            kinds: of device, in the order of the shapes' counts.
            pins: what is pinned.
        """
        self.pins, self._kinds, self._size = pins, kinds, chain.num_blocks + 1
        self._limits = [chain.blocks[sort].largest_tensor_parallel for sort in chain.sort_of]
        self._known: dict[tuple[tuple[bool, ...], int], Bools] = {}
        places = np.arange(self._size)
        self._unbroken = np.ones((self._size, self._size), dtype=bool)
        self.whole = chain.opens[:, None] & chain.opens[None, :]
        """Whether a stage may begin and end there; of interleaved stages this does not hold, but of each chunk."""
        self._restricts = pins.names_blocks or not chain.opens.all()
        if pins.cuts is not None:
            stage = np.searchsorted(np.array(pins.cuts), places, side="right")
            self._unbroken = stage[:, None] == np.maximum(stage - np.isin(places, pins.cuts), 0)[None, :]
            edges = np.isin(places, (0, *pins.cuts, self._size - 1))
            self.whole &= edges[:, None] & edges[None, :] & self._unbroken

    def may_hold(self, shape: Shape) -> Bools:
        """Which parts a stage on `shape` may hold; what is inside of one that it may, it may too."""
        key = tuple(count > 0 for count in shape.counts), shape.tensor
        if key not in self._known:
            self._known[key] = self._unbroken & self._without(self._refused(*key))
        return self._known[key]

    def stage(self, first: int, end: int, shape: Shape) -> bool:
        """Whether a stage on `shape` may be the blocks from `first` to `end`."""
        return not self._restricts or bool(self.whole[first, end] and self.may_hold(shape)[first, end])

    def _refused(self, used: Sequence[bool], tensor: int) -> set[int]:
        """The blocks that may not be on devices of the kinds `used`, shared by `tensor` of them."""
        own = [kind for kind, is_used in zip(self._kinds, used, strict=True) if is_used]
        refused = {block for block, limit in enumerate(self._limits) if tensor > limit}
        for part in self.pins.parts:
            if not (part.takes_tensor(tensor) and all(map(part.takes_kind, own))):
                refused |= set(range(part.first_block, part.end_block))
        return refused

    def _without(self, refused: set[int]) -> Bools:
        """The parts that hold none of the blocks `refused`."""
        before = np.cumsum([0, *(block in refused for block in range(self._size - 1))])
        return np.asarray(before[:, None] == before[None, :])


def widest_degree(workload: WorkloadProfile, pins: Pins) -> int:
    """The highest tensor-parallel degree that is of use: of the narrowest block, or of that stage's."""
    limits = [block.largest_tensor_parallel for block in workload.blocks for _ in range(block.count)]
    edges = (0, *(pins.cuts or ()), len(limits))
    return max(min(limits[first:end]) for first, end in pairwise(edges))
