"""How a workload is split over devices, in full: the extended form of `plan.ParallelPlan`'s stages. Pure values."""

from functools import cached_property
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from heliostat.cluster.catalogue import Dtype
from heliostat.placement.schedule import Schedule
from heliostat.values import Frozen

Recompute = Literal["none", "selective", "full"]
Zero = Literal[0, 1, 2, 3]


class ReplicaShare(Frozen):
    """One data-parallel replica of a stage: `tensor_parallel x context_parallel` devices of one kind."""

    device_kind: str
    num_samples: PositiveInt
    """Of each global batch; over all replicas of a stage they add up to it."""
    micro_batch: PositiveInt

    @property
    def num_micro_batches(self) -> int:
        """Forward passes per step."""
        return -(-self.num_samples // self.micro_batch)


class StageStrategy(Frozen):
    """A contiguous run of blocks, counted with their repetitions, and how it is split."""

    first_block: NonNegativeInt
    end_block: PositiveInt
    replicas: tuple[ReplicaShare, ...] = Field(min_length=1)
    tensor_parallel: PositiveInt = 1
    sequence_parallel: bool = False
    """Activations between the tensor-parallel parts are divided too."""
    context_parallel: PositiveInt = 1
    zero: Zero = 0
    recompute: Recompute = "none"
    offload: bool = False
    """Optimizer states in host memory."""

    @property
    def ranks_per_replica(self) -> int:
        """Devices that hold one replica."""
        return self.tensor_parallel * self.context_parallel

    @property
    def num_ranks(self) -> int:
        """Devices of the stage."""
        return len(self.replicas) * self.ranks_per_replica


class Execution(Frozen):
    """What the program that runs the plan does: facts about it, nothing that is fitted."""

    dtype: Dtype = "bf16"
    gradient_bytes: Literal[2, 4] = 4
    """Per element, in the synchronisation of the gradients."""
    overlap_gradients: bool = True
    """Gradients are synchronised while the backward pass goes on."""
    prefetch: bool = True
    """ZeRO-3 gathers the next block's parameters while one computes."""
    overlap_tensor: bool = False
    """The backward pass's tensor-parallel collectives run beside the products that make the parameters' gradients."""
    async_tensor: bool = False
    """Tensor-parallel collectives are cut up and overlapped with the products beside them."""
    keeps_gathered: bool = True
    """Sequence-parallel inputs stay whole until the backward pass, as DTensor keeps them; Megatron-LM gathers them
    again."""
    row_scaling: bool = False
    """FP8 with a scale per row instead of one per tensor."""
    compiled: bool = False
    """Kernels are started from compiled code."""
    sync_each_micro_batch: bool = True
    """ZeRO 2 and 3 gather parameters and scatter gradients in every micro-batch; else ZeRO 2 does so once per step."""
    accumulate_bytes: Literal[2, 4] = 4
    """Per element, in the gradients that are kept from micro-batch to micro-batch."""
    state_bytes: NonNegativeFloat = 12.0
    """Optimizer states per parameter: the 32-bit copy and two moments of mixed-precision Adam."""
    context_bytes: NonNegativeFloat = float(1 << 30)
    """On each device beside tensors: CUDA context, NCCL buffers and cuBLAS work spaces, 0.5 to 1.5 GiB on A100 and
    H100."""
    parameter_bytes: Literal[2, 4] = 2
    """Per parameter as it is kept between steps, beside the optimizer's states. With 4, ZeRO makes a 2-byte copy of the
    part that computes."""


class Strategy(Frozen):
    """The whole split."""

    global_batch: PositiveInt
    stages: tuple[StageStrategy, ...] = Field(min_length=1)
    schedule: Schedule = "none"
    chunks: PositiveInt = 1
    """Parts of the chain per stage, of the interleaved schedule: `first_block` and `end_block` then count one stage's
    blocks as if they followed one another."""
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        place = 0
        for number, stage in enumerate(self.stages):
            if stage.first_block != place or stage.end_block <= place:
                raise ValueError(f"stage {number} must begin at block {place} and hold at least one block")
            place = stage.end_block
            samples = sum(replica.num_samples for replica in stage.replicas)
            if samples != self.global_batch:
                raise ValueError(f"the replicas of stage {number} share {samples} of {self.global_batch} samples")
        if (self.schedule == "none") != (len(self.stages) == 1):
            raise ValueError("the schedule is `none` with one stage, and only then")
        if self.schedule == "interleaved" and self.num_micro_batches % len(self.stages):
            raise ValueError(
                f"an interleaved schedule needs micro-batches in multiples of its {len(self.stages)} stages, "
                f"not {self.num_micro_batches}"
            )
        return self

    @property
    def num_ranks(self) -> int:
        """Devices the plan uses."""
        return sum(stage.num_ranks for stage in self.stages)

    @cached_property
    def num_micro_batches(self) -> int:
        """Forward passes of the busiest replica."""
        return max(replica.num_micro_batches for stage in self.stages for replica in stage.replicas)
