"""What one block costs a replica, for every way to run it, asked once. Pure.

All that `predict` counts is a sum over blocks, or the largest of them, so the numbers of each sort of block suffice for
every part of the chain. Arrays have sorts of block as rows and options as columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from heliostat.placement.block_time import update_s
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.memory import BlockPass, BlockStates, block_pass, block_states, tied_states
from heliostat.placement.search.chain import Bools, Chain, Floats, Parts
from heliostat.placement.search.room import PassBytes, Room, StateBytes
from heliostat.placement.stage_time import PassTime, StageLinks, StageTimer
from heliostat.placement.strategy import Execution, Recompute, ReplicaShare, StageStrategy, Zero


class Option(NamedTuple):
    """How a stage runs, beside its shape."""

    sequence_parallel: bool
    recompute: Recompute
    zero: Zero
    offload: bool


EXACT_SAMPLES = 4
"""Micro-batches up to here are timed one by one to share samples by speed; beyond, every fourth to eighth."""
LARGEST_SAMPLES = 64
"""Of a micro-batch; larger ones are hardly faster by the sample."""
PLAIN = Option(sequence_parallel=False, recompute="none", zero=0, offload=False)
Options = tuple[Option, ...]
Triple = tuple[Floats, Floats, Floats]


class Costs:
    """Of one workload on one cluster; remembers what it was asked. Links are those of `Ground.typical_links`."""

    def __init__(self, chain: Chain, ground: Ground, execution: Execution) -> None:
        self.chain, self.ground, self.execution = chain, ground, execution
        self.timer = StageTimer(ground.constants.shared)
        self._times: dict[tuple[object, ...], list[PassTime]] = {}
        self._all_times: dict[tuple[object, ...], Triple] = {}
        self._whole_s: dict[tuple[object, ...], Sequence[float]] = {}
        self._pass_bytes: dict[tuple[object, ...], PassBytes] = {}
        self._state_bytes: dict[tuple[object, ...], tuple[StateBytes, StateBytes]] = {}
        self._parameters: dict[int, Floats] = {}
        self._updates: dict[tuple[int, int], Floats] = {}

    def with_more_memory(self, extra_bytes: Mapping[str, int]) -> "Costs":
        """The same where devices of some kinds have more memory; no cost depends on it, so nothing is asked again."""
        twin = copy(self)
        twin.ground = copy(self.ground)
        twin.ground.memory_bytes = [
            have + extra_bytes.get(kind, 0)
            for kind, have in zip(self.ground.kinds, self.ground.memory_bytes, strict=True)
        ]
        return twin

    def gathers(self, option: Option) -> bool:
        """Whether gradients are synchronised inside the passes."""
        return option.zero == 3 or (option.zero == 2 and self.execution.sync_each_micro_batch)

    def parameters(self, tensor: int) -> Floats:
        """Parameters of one block on one rank, by sort."""
        if tensor not in self._parameters:
            self._parameters[tensor] = np.array([block.rank_parameters(tensor) for block in self.chain.blocks])
        return self._parameters[tensor]

    def updates(self, kind: int, tensor: int) -> Floats:
        """Seconds of the optimizer on one block of one rank, by sort, if nothing shares it."""
        key = (kind, tensor)
        if key not in self._updates:
            speed, per_parameter = self.ground.speeds[kind], self.timer.shared.optimizer_bytes
            self._updates[key] = np.array(
                [update_s(block, tensor, speed, per_parameter) for block in self.chain.blocks]
            )
        return self._updates[key]

    def all_times(self, kind: int, tensor: int, options: Options, micro_batch: int, links: StageLinks) -> Triple:
        """Forward, backward and deferrable seconds of one micro-batch of one block."""
        group = id(links.data) if any(map(self.gathers, options)) else None
        key = (kind, tensor, options, micro_batch, id(links.tensor), group)
        if key not in self._all_times:
            found = [self._pass_times(kind, tensor, option, micro_batch, links) for option in options]
            self._all_times[key] = (
                np.array([[one.forward_s for one in column] for column in found]).T,
                np.array([[one.backward_s for one in column] for column in found]).T,
                np.array([[one.weight_s for one in column] for column in found]).T,
            )
        return self._all_times[key]

    def whole_s(self, kind: int, tensor: int, most: int, links: StageLinks) -> Sequence[float]:
        """Seconds of a micro-batch of 1, 2, ... `most` samples of the whole chain, run plainly; never falling.

        Of large ones every fourth to eighth is asked for, and what lies between is interpolated.
        """
        key = (kind, tensor, most, id(links.tensor))
        if key not in self._whole_s:
            sizes = [size for size in range(1, most + 1) if size == most or size % _step(size) == 0]
            found = [
                sum(
                    count * (one.forward_s + one.backward_s)
                    for count, one in zip(
                        self.chain.before[-1], self._pass_times(kind, tensor, PLAIN, size, links), strict=True
                    )
                )
                for size in sizes
            ]
            between = np.interp(np.arange(1, most + 1), sizes, found)
            self._whole_s[key] = np.maximum.accumulate(between).tolist()
        return self._whole_s[key]

    def samples_per_s(self, shape: Shape) -> float:
        """What the replicas of `shape` get through at best, each for itself, run plainly."""
        links = self.ground.typical_links(shape)
        best = 0.0
        for kind, count in enumerate(shape.counts):
            if count:
                seconds = self.whole_s(kind, shape.tensor, LARGEST_SAMPLES, links)
                best += count * max((at + 1) / one for at, one in enumerate(seconds))
        return best

    def room(self, tensor: int, options: Options, width: int, parts: Parts) -> Room:
        """What `parts` need on one rank of `tensor` and of `width` replicas."""
        passes, (states, tied) = self._all_passes(tensor, options), self._states(tensor, options, width)
        return Room(parts, self._recomputable, passes, states, tied, self.execution.context_bytes)

    @cached_property
    def _recomputable(self) -> Bools:
        return np.array([block.recomputable for block in self.chain.blocks])

    def _all_passes(self, tensor: int, options: Options) -> PassBytes:
        key = (tensor, options)
        if key not in self._pass_bytes:
            stages = [_stage(tensor, option) for option in options]
            found = [[block_pass(block, one, 1, self.execution) for one in stages] for block in self.chain.blocks]
            self._pass_bytes[key] = PassBytes(*_columns(found, PassBytes._fields))
        return self._pass_bytes[key]

    def _states(self, tensor: int, options: Options, width: int) -> tuple[StateBytes, StateBytes]:
        key = (tensor, options, width)
        if key not in self._state_bytes:
            stages = [_stage(tensor, option, width) for option in options]
            found = [[block_states(block, one, self.execution) for one in stages] for block in self.chain.blocks]
            tied = [[tied_states(self.chain.workload, one, self.execution) for one in stages]]
            names = StateBytes._fields
            self._state_bytes[key] = StateBytes(*_columns(found, names)), StateBytes(*_columns(tied, names))
        return self._state_bytes[key]

    def _pass_times(
        self, kind: int, tensor: int, option: Option, micro_batch: int, links: StageLinks
    ) -> list[PassTime]:
        inside = self.gathers(option) and links.data.size > 1
        group = (option.zero, id(links.data)) if inside else None
        key = (kind, tensor, option[:2], micro_batch, id(links.tensor), group)
        if key not in self._times:
            stage = _stage(tensor, option if inside else option._replace(zero=0))
            speed = self.ground.speeds[kind]
            self._times[key] = [
                self.timer.pass_time(((block, 1),), stage, micro_batch, speed, links, self.execution)
                for block in self.chain.blocks
            ]
        return self._times[key]


def _step(size: int) -> int:
    """How far apart the sizes are that are asked for, near `size`."""
    return 1 << max(0, size.bit_length() - EXACT_SAMPLES.bit_length())


def _columns(found: Sequence[Sequence[BlockPass | BlockStates]], names: Sequence[str]) -> Iterator[Floats]:
    """Each field as an array."""
    for name in names:
        yield np.array([[getattr(one, name) for one in row] for row in found], dtype=np.float64)


def _stage(tensor: int, option: Option, width: int = 1) -> StageStrategy:
    """A stage of one block, run so."""
    share = ReplicaShare.model_construct(device_kind="", num_samples=1, micro_batch=1)
    return StageStrategy.model_construct(
        first_block=0,
        end_block=1,
        replicas=(share,) * width,
        tensor_parallel=tensor,
        context_parallel=1,
        **option._asdict(),
    )
