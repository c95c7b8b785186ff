"""How a workload is split: `ParallelPlan`. Pure values; the planner makes them, the executor runs them."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from heliostat.cluster.spec import Origin
from heliostat.values import Frozen


class Replica(Frozen):
    """One data-parallel replica of a stage: what kind of device it needs and its share of every global batch."""

    device_kind: str
    num_samples: PositiveInt
    """Samples of each global batch; over all replicas they add up to the global batch."""
    micro_batch: PositiveInt
    """Largest number of samples in one forward pass."""

    @property
    def num_micro_batches(self) -> int:
        """Forward passes per step."""
        return -(-self.num_samples // self.micro_batch)


class Stage(Frozen):
    """A contiguous run of blocks and the replicas that hold it."""

    first_block: NonNegativeInt
    end_block: PositiveInt
    """One past the last block."""
    replicas: tuple[Replica, ...] = Field(min_length=1)
    tensor_parallel: PositiveInt = 1
    zero: Literal[0, 1, 2, 3] = 0
    recompute: Literal["none", "selective", "full"] = "none"


class StepTime(Frozen):
    """Where one step's time is predicted to go."""

    compute_s: NonNegativeFloat
    """The slowest replica's forward, backward and update."""
    sync_s: NonNegativeFloat
    """Gradient synchronisation that no compute hides."""

    @property
    def total_s(self) -> float:
        """Seconds per step."""
        return self.compute_s + self.sync_s


class Prediction(Frozen):
    """What a plan is expected to cost."""

    step: StepTime
    memory_bytes: tuple[NonNegativeInt, ...]
    """Peak of each rank, in rank order."""


class Refusal(Frozen):
    """A candidate that was considered and not taken."""

    candidate: str
    reason: str


class ParallelPlan(Frozen):
    """The split of one workload over one cluster's devices, its prediction, and why it was chosen."""

    workload: str
    cluster_origin: Origin
    """What the plan was made for; with `emulated`, no figure in it says anything of the hardware it names."""
    global_batch: PositiveInt
    stages: tuple[Stage, ...] = Field(min_length=1)
    schedule: Literal["none", "gpipe", "1f1b", "interleaved", "zero-bubble"] = "none"
    """Pipeline schedule; `none` with a single stage."""
    prediction: Prediction
    reason: str
    """Why this one, in one sentence."""
    refused: tuple[Refusal, ...] = ()

    @property
    def num_ranks(self) -> int:
        """Devices the plan uses."""
        return sum(len(stage.replicas) * stage.tensor_parallel for stage in self.stages)

    def describe(self) -> str:
        """The plan in one line, as a person would say it."""
        return "; ".join(
            f"blocks {stage.first_block}..{stage.end_block - 1} on "
            + ", ".join(
                f"{r.device_kind} ({r.num_samples} samples, {r.num_micro_batches} micro-batches)"
                for r in stage.replicas
            )
            for stage in self.stages
        )
