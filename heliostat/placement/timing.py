"""Measured times of blocks: they go before what the cost model estimates. Pure.

A line or a curve over micro-batches, for one kind of device and one tensor-parallel degree. What was measured with a
degree above one holds the collectives of that group.
"""

from bisect import bisect_left
from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from heliostat.values import Frozen


class PassSample(Frozen):
    """One micro-batch's forward and backward pass."""

    micro_batch: PositiveInt
    forward_s: NonNegativeFloat
    backward_s: NonNegativeFloat


class BlockTiming(Frozen):
    """What one block takes on one kind of device."""

    device_kind: str
    """Or a device type, for its kinds of any speed."""
    tensor_parallel: PositiveInt = 1
    samples: tuple[PassSample, ...] = Field(min_length=1)
    """In increasing micro-batch."""
    update_s: NonNegativeFloat | None = None
    """The optimizer's step on one rank's part of the block; None if it was not measured."""

    @model_validator(mode="after")
    def _is_sorted(self) -> Self:
        sizes = [one.micro_batch for one in self.samples]
        if sizes != sorted(set(sizes)):
            raise ValueError("the samples of a timing must come in increasing micro-batch, each once")
        return self

    def pass_s(self, micro_batch: int) -> tuple[float, float]:
        """Forward and backward seconds: by the line through the nearest two samples, or in proportion to a lone one."""
        sizes = [one.micro_batch for one in self.samples]
        if len(sizes) == 1:
            part = micro_batch / sizes[0]
            return part * self.samples[0].forward_s, part * self.samples[0].backward_s
        place = min(max(bisect_left(sizes, micro_batch), 1), len(sizes) - 1)
        low, high = self.samples[place - 1 : place + 1]
        part = (micro_batch - low.micro_batch) / (high.micro_batch - low.micro_batch)
        return (
            max(0.0, low.forward_s + part * (high.forward_s - low.forward_s)),
            max(0.0, low.backward_s + part * (high.backward_s - low.backward_s)),
        )
