"""What is to be run: a model as a chain of blocks, with what each costs. Pure: no torch."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from heliostat.values import Frozen


class BlockProfile(Frozen):
    """One block of the chain, per sample where it says so; `count` equal blocks follow one another."""

    name: str
    num_parameters: NonNegativeInt
    forward_flops: NonNegativeFloat
    """Per sample."""
    backward_flops: NonNegativeFloat
    """Per sample."""
    saved_bytes: NonNegativeFloat
    """Bytes of activations kept for the backward pass, per sample."""
    count: PositiveInt = 1


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


class WorkloadProfile(Frozen):
    """A model as a chain of blocks, and its measured step times by device kind where there are any."""

    name: str
    blocks: tuple[BlockProfile, ...]
    timings: dict[str, StepTiming] = Field(default_factory=dict)
    """Device kind -> measured step time."""
    gang_overhead_s: NonNegativeFloat | None = None
    """Measured: what a step of all devices together takes longer than the slowest one's by itself. It holds the
    all-reduce and what its threads take from the compute. None until measured."""
    parameter_bytes_per_element: PositiveInt = 4
    optimizer_bytes_per_parameter: NonNegativeInt = 8
    """AdamW keeps two fp32 moments."""

    @property
    def num_parameters(self) -> int:
        """Parameters over all blocks."""
        return sum(block.num_parameters * block.count for block in self.blocks)

    @property
    def gradient_bytes(self) -> int:
        """What one data-parallel synchronisation moves."""
        return self.num_parameters * self.parameter_bytes_per_element

    @property
    def flops_per_sample(self) -> float:
        """Forward and backward FLOPs of one sample."""
        return sum((block.forward_flops + block.backward_flops) * block.count for block in self.blocks)

    @property
    def saved_bytes_per_sample(self) -> float:
        """Activations one sample keeps for the backward pass."""
        return sum(block.saved_bytes * block.count for block in self.blocks)
