"""Measured training steps, and what they say of a workload's blocks. Pure."""

from collections.abc import Mapping

from pydantic import NonNegativeFloat

from heliostat.placement.timing import BlockTiming, PassSample
from heliostat.placement.workload import WorkloadProfile
from heliostat.values import Frozen

BACKWARD_PART = 2 / 3
"""Of a pass: two products where the forward pass has one."""


class StepTiming(Frozen):
    """Measured time of one training step on one kind of device, without communication.

    `step = optimizer_s + num_micro_batches * micro_batch_s + num_samples * sample_s`: two terms that do not grow with
    the batch and one that does. Medians over repeated steps.
    """

    micro_batch_s: NonNegativeFloat
    sample_s: NonNegativeFloat
    optimizer_s: NonNegativeFloat

    def compute_s(self, *, num_micro_batches: int, num_samples: int) -> float:
        """Seconds of forward, backward and update for `num_samples` in `num_micro_batches` parts."""
        return self.optimizer_s + num_micro_batches * self.micro_batch_s + num_samples * self.sample_s


def with_timings(
    workload: WorkloadProfile, timings: Mapping[str, StepTiming], gang_overhead_s: float | None
) -> WorkloadProfile:
    """`workload` with measured steps of the whole model, by device kind, divided over its blocks.

    Passes are divided as the operations are, the update as the parameters are: exact for the model as a whole.
    """
    passes = workload.forward_flops or float(workload.num_blocks)
    updates = float(workload.num_parameters) or 1.0
    blocks = [
        block.model_copy(
            update={
                "timings": tuple(
                    _timing(
                        kind,
                        timing,
                        (block.forward_flops if workload.forward_flops else 1.0) / passes,
                        block.num_parameters / updates,
                    )
                    for kind, timing in timings.items()
                )
            }
        )
        for block in workload.blocks
    ]
    return workload.model_copy(update={"blocks": tuple(blocks), "gang_overhead_s": gang_overhead_s})


def _timing(kind: str, timing: StepTiming, passes: float, updates: float) -> BlockTiming:
    samples = []
    for micro_batch in (1, 2):
        seconds = passes * (timing.micro_batch_s + micro_batch * timing.sample_s)
        samples.append(
            PassSample(
                micro_batch=micro_batch, forward_s=(1 - BACKWARD_PART) * seconds, backward_s=BACKWARD_PART * seconds
            )
        )
    return BlockTiming(device_kind=kind, samples=tuple(samples), update_s=updates * timing.optimizer_s)
