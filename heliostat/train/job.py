"""What a training run is told, and what it tells in the end. Pure values: no torch, no Ray."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from heliostat.data.versions import DatasetVersion
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.placement import Placement
from heliostat.train.execution import Precision
from heliostat.values import Frozen, plain


class TrainSettings(Frozen):
    """How long, how fast, and what to keep."""

    epochs: PositiveInt
    learning_rate: PositiveFloat
    """Peak, reached after the warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Part of all steps in which the learning rate rises linearly; after it comes a cosine down to zero."""
    seed: NonNegativeInt = 0
    checkpoint_every_steps: PositiveInt = 50
    """A checkpoint is also committed at the end of every epoch, with its validation metrics."""
    keep_checkpoints: PositiveInt = 2
    """The latest ones that are kept; the best one is kept besides."""
    max_restarts: NonNegativeInt = 2
    metric: str
    """The validation metric that says which checkpoint is best."""
    mode: Literal["max", "min"] = "max"
    precision: Precision = "fp32"
    """Of the passes. With bf16 parameters, gradients and optimizer states stay in 32 bits."""
    clip_norm: PositiveFloat | None = None
    """The largest norm that the gradient of all parameters together may have; longer ones are scaled down to it."""
    compile: bool = False
    """Compile each block."""
    patience: PositiveInt | None = None
    """Epochs without a better `metric` after which training ends; None: it never ends early."""
    verify: bool = False
    """Check the plan before the first step: the loss contract, some steps against one process, communication."""
    trace_steps: NonNegativeInt = 0
    """Steps, after the first, that every rank writes a trace of."""


class TrainJob(Frozen):
    """Everything a rank needs to train, besides its rank."""

    task: str
    """Reference of the `Task` subclass: `package.module:Name` or `/path/to/file.py:Name`."""
    params: dict[str, Any]
    """Keyword parameters of the task."""
    data: DatasetVersion
    plan: ParallelPlan
    roles: tuple[NonNegativeInt, ...] | None = None
    """By rank, which rank of the plan it plays: a place in `apply.roles.roles(plan.strategy)`; None: each its own."""
    settings: TrainSettings
    directory: str
    """Where checkpoints and telemetry go; on storage that all ranks share."""
    code_paths: list[str] = Field(default_factory=list)
    """Directories of the user's code, for `sys.path`."""

    @model_validator(mode="after")
    def _every_role_is_played_once(self) -> Self:
        if self.roles is not None and sorted(self.roles) != list(range(self.plan.num_ranks)):
            raise ValueError(f"the roles {list(self.roles)} are not those of a plan with {self.plan.num_ranks} ranks")
        return self

    def placed(self, placement: Placement) -> "TrainJob":
        """The job with the roles that `placement` gives its ranks."""
        return self.model_copy(update={"roles": tuple(one.role for one in placement.ranks)})

    @property
    def identity(self) -> dict[str, Any]:
        """All that the loss curve depends on; blind to how the global batch is split over ranks."""
        settings = self.settings
        identity: dict[str, Any] = plain(
            {
                "task": self.task.rpartition("/")[2],
                "params": self.params,
                "data": self.data.id,
                "global_batch": self.plan.global_batch,
                "epochs": settings.epochs,
                "learning_rate": settings.learning_rate,
                "weight_decay": settings.weight_decay,
                "warmup_fraction": settings.warmup_fraction,
                "seed": settings.seed,
                "precision": settings.precision,
                "clip_norm": settings.clip_norm,
            }
        )
        return identity


class TrainReport(Frozen):
    """How a run went."""

    num_steps: NonNegativeInt
    metrics: dict[str, float]
    """Validation metrics of the best checkpoint."""
    checkpoint: str
    """Directory of the best checkpoint."""
    step_time_s: NonNegativeFloat
    """Median over the steps, as rank 0 saw them."""
    compute_s: tuple[NonNegativeFloat, ...]
    """Median forward, backward and update of each rank."""
    elements_per_s: NonNegativeFloat
    """Rows or tokens, as the loss counts them: median over the steps, all ranks together."""
    parts_s: tuple[dict[str, NonNegativeFloat], ...]
    """Where the steps of each rank went, in seconds, medians: passes, wait, sync, update."""
    peak_memory_bytes: tuple[NonNegativeInt, ...]
    """What training added to each rank's resident memory, at its peak."""
    num_restarts: NonNegativeInt = 0
    resumed_from_step: NonNegativeInt | None = None
    """The committed step that the last attempt started from; None when it started from nothing."""
    wall_s: NonNegativeFloat
    trace: str | None = None
    """Directory of the ranks' traces; None when none was asked for."""
    placement: Placement | None = None
    """Where the last attempt ran; None when Heliostat did not place it."""
