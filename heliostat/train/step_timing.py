"""Measured training steps, and what they say of a workload's blocks. Pure."""

from collections.abc import Mapping
from itertools import accumulate

from pydantic import NonNegativeFloat

from heliostat.placement.timing import BlockTiming, PassSample
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.values import Frozen

BACKWARD_PART = 2 / 3
"""Of a pass: two products where the forward pass has one."""


SIZES = tuple(1 << power for power in range(11))
"""Micro-batches at which a block's time is noted; between them it runs straight."""


class BlockLine(Frozen):
    """Measured time of one block's passes: a part for every micro-batch, and one for every sample."""

    forward_s: NonNegativeFloat
    forward_sample_s: NonNegativeFloat
    backward_s: NonNegativeFloat
    backward_sample_s: NonNegativeFloat

    def pass_s(self, micro_batch: int) -> tuple[float, float]:
        """Forward and backward seconds."""
        return (
            self.forward_s + micro_batch * self.forward_sample_s,
            self.backward_s + micro_batch * self.backward_sample_s,
        )


class StepTiming(Frozen):
    """Measured time of one training step on one kind of device, without communication.

    `step = optimizer_s + num_micro_batches * micro_batch_s + num_samples * sample_s`: two terms that do not grow with
    the batch and one that does. Medians over repeated steps.
    """

    micro_batch_s: NonNegativeFloat
    sample_s: NonNegativeFloat
    optimizer_s: NonNegativeFloat
    blocks: tuple[BlockLine, ...] = ()
    """Of every block of the chain, counted with repetitions; none if the blocks were not timed."""

    def compute_s(self, *, num_micro_batches: int, num_samples: int) -> float:
        """Seconds of forward, backward and update for `num_samples` in `num_micro_batches` parts."""
        return self.optimizer_s + num_micro_batches * self.micro_batch_s + num_samples * self.sample_s


def with_timings(
    workload: WorkloadProfile, timings: Mapping[str, StepTiming], gang_overhead_s: float | None
) -> WorkloadProfile:
    """`workload` with measured steps of the whole model, by device kind, divided over its blocks.

    Passes are divided as the blocks' own times are, or where those were not measured as the operations are; the update
    as the parameters are. So what is predicted for the model as a whole is what was measured of it.
    """
    places = [0, *accumulate(block.count for block in workload.blocks)]
    blocks = [
        block.model_copy(
            update={
                "timings": tuple(
                    _timing(workload, kind, timing, range(begin, begin + block.count), block)
                    for kind, timing in timings.items()
                )
            }
        )
        for block, begin in zip(workload.blocks, places, strict=False)
    ]
    return workload.model_copy(update={"blocks": tuple(blocks), "gang_overhead_s": gang_overhead_s})


def _timing(workload: WorkloadProfile, kind: str, timing: StepTiming, places: range, block: Block) -> BlockTiming:
    update = block.num_parameters / (workload.num_parameters or 1)
    return BlockTiming(
        device_kind=kind,
        samples=tuple(_sample(workload, timing, places, block, size) for size in SIZES),
        update_s=update * timing.optimizer_s,
    )


def _sample(workload: WorkloadProfile, timing: StepTiming, places: range, block: Block, size: int) -> PassSample:
    """Of one of the equal blocks at `places`: its part of the passes of the whole model."""
    whole_s = timing.micro_batch_s + size * timing.sample_s
    if timing.blocks:
        passes = [one.pass_s(size) for one in timing.blocks]
        total = sum(map(sum, passes)) or 1.0
        forward, backward = (sum(passes[place][kind] for place in places) / len(places) / total for kind in (0, 1))
    else:
        part = block.forward_flops / workload.forward_flops if workload.forward_flops else 1 / workload.num_blocks
        forward, backward = (1 - BACKWARD_PART) * part, BACKWARD_PART * part
    return PassSample(micro_batch=size, forward_s=forward * whole_s, backward_s=backward * whole_s)
