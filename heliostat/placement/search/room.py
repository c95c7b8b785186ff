"""How many micro-batches every part of the chain can hold at once in a device's memory, for every option. Pure.

As `memory.rank_memory` counts, which is linear in the micro-batch and in how many are in flight:

    states + context + what the allocator cannot use
    + (1 + fragmentation) x max(activations + temporary, the optimizer's)   <=   memory

Axes: parts of the chain, options.
"""

from typing import NamedTuple

import numpy as np

from heliostat.placement.memory import FRAGMENTATION, TRANSFERS
from heliostat.placement.search.chain import Bools, Floats, Parts


class PassBytes(NamedTuple):
    """`memory.BlockPass` of one sample, for sorts of block and options."""

    saved: Floats
    backward: Floats
    loss: Floats
    forward: Floats
    handed_on: Floats
    carried: Floats


class StateBytes(NamedTuple):
    """`memory.BlockStates`, for sorts of block and options."""

    parameters: Floats
    gradients: Floats
    optimizer: Floats
    step: Floats
    gathered: Floats
    ahead: Floats
    behind: Floats
    streamed: Floats


class Room:
    """What parts of a chain need on one rank."""

    def __init__(
        self,
        parts: Parts,
        recomputable: Bools,
        passes: PassBytes,
        states: StateBytes,
        tied: StateBytes,
        context_bytes: float,
    ) -> None:
        """Prepare.

        Args:
            parts: which.
            recomputable: of each sort of block, whether recomputation covers it.
            passes: of each sort.
            states: of each sort.
            tied: of the copy of a tied embedding that the last of several stages holds; one row.
            context_bytes: that no tensor can have.
        """
        self.parts, self.recomputable = parts, recomputable
        self.passes, self.states, self.tied, self.context_bytes = passes, states, tied, context_bytes
        self.stay = parts.counts @ _stay(states)
        self.step = parts.counts @ states.step
        self.copies = parts.copies[:, None]
        self.saved = parts.counts @ passes.saved + parts.largest(passes.carried)
        self.handed_on = passes.handed_on[parts.first_sorts]
        self.ahead = parts.largest(states.ahead)
        self.loss = parts.largest(passes.loss)
        self.streamed = parts.largest(states.streamed)
        self.forward = parts.largest(passes.forward)

    def holds_one(self, micro_batch: Floats | int, memory_bytes: float) -> Bools:
        """Whether one micro-batch fits, with no other stage beside.

        Args:
            micro_batch: its samples; one number, or one for each option.
            memory_bytes: of the device.
        """
        free = self._free(micro_batch, memory_bytes)
        needed = micro_batch * self.saved + self._temporary(micro_batch)
        return np.asarray((free >= needed) & (free >= self.step))

    def in_flight(self, micro_batch: int, memory_bytes: float) -> Floats:
        """How many micro-batches fit at once among other stages; less than 0 where not even the states do."""
        free = self._free(micro_batch, memory_bytes, self.copies)
        left = free - self._temporary(micro_batch, self.copies) - TRANSFERS * micro_batch * self.handed_on
        each = np.maximum(micro_batch * (self.saved + self.handed_on), 1e-9)
        return np.where((left >= 0) & (free >= self.step + self.copies * self.tied.step), left / each, -1.0)

    def _free(self, micro_batch: Floats | int, memory_bytes: float, copies: Floats | float = 0.0) -> Floats:
        """Bytes for activations and what is needed for a while; `copies` is 1 where there is a copy of a table."""
        streamed = np.maximum(self.streamed, copies * self.tied.streamed)
        unusable = streamed + micro_batch * np.minimum(self.loss, self.forward)
        stay = self.stay + copies * _stay(self.tied)
        return np.asarray((memory_bytes - self.context_bytes - stay - unusable) / (1 + FRAGMENTATION))

    def _temporary(self, micro_batch: Floats | int, copies: Floats | float = 0.0) -> Floats:
        """What the pass of one block needs beside the activations."""
        passes, states, parts = self.passes, self.states, self.parts
        loses, inner = passes.loss > 0, self.recomputable[:, None]
        freed = micro_batch * parts.largest(np.where(loses, passes.saved, 0.0))
        behind = parts.largest(states.behind - np.where(loses, 0.0, micro_batch * passes.saved))
        behind = np.maximum(behind, copies * self.tied.behind)
        own = micro_batch * passes.backward + states.gathered
        layers = parts.largest(np.where(inner, own + states.ahead, -np.inf)) + behind
        ends = parts.largest(np.where(inner | loses, -np.inf, own)) + self.ahead
        table = copies * (self.tied.gathered + self.ahead)
        last = parts.largest(np.where(loses, own, -np.inf)) + self.ahead
        most = np.maximum(np.maximum(layers, np.maximum(ends, table)) - freed, last)
        return np.asarray(np.maximum(micro_batch * self.loss, most))


def _stay(states: StateBytes) -> Floats:
    return states.parameters + states.gradients + states.optimizer
