"""The sections of the experiment file, with their defaults and help texts: what may be in it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Strict, model_validator

from heliostat.experiment.fields import (
    Address,
    Alias,
    LearningRate,
    Name,
    Reference,
    Section,
    Text,
    Uri,
    WeightDecay,
)
from heliostat.placement.schedule import Schedule
from heliostat.placement.strategy import Recompute, Zero
from heliostat.tune.space import Domain


class ClusterConfig(Section):
    """Which Ray cluster the experiment runs on."""

    address: Address = "local"
    """`local` starts Ray on this machine; `auto` joins the cluster that this machine belongs to; or `host:port`."""
    emulate: Text | None = None
    """A cluster file, relative to this one: `local` then starts Ray nodes here that pretend to be that cluster."""
    cpus_per_device: PositiveInt = 1
    """CPU cores that go with each device. Without GPUs, a device is this many cores."""


class TrackingConfig(Section):
    """Where runs, metrics and models are recorded."""

    uri: Uri | None = None
    """The MLflow server. null: a database inside the store, with a local server on it."""


class DataConfig(Section):
    """How the data is made."""

    prepare: Reference
    """The function `prepare(options)` that returns the splits, as `./file.py:name` or `package.module:name`."""
    features: Reference | None = None
    """The FeatureSet that turns raw columns into features, in the data step and in the request path alike.
    null: the task takes the columns as they are prepared."""
    label: Text | None = None
    """The column to predict; with features only."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What `prepare` receives; its keys are the function's own."""


class EarlyStopConfig(Section):
    """When training ends before its last epoch."""

    patience: PositiveInt
    """Epochs in a row without a better `tune.metric` on the validation split."""


class TrainConfig(Section):
    """How the model is trained."""

    task: Reference
    """The Task: the model, its loss and its metrics."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the task's constructor."""
    epochs: PositiveInt
    """Passes over the training split."""
    global_batch: PositiveInt
    """Samples in one optimiser step, over all devices together."""
    lr: LearningRate
    """Peak learning rate."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay of AdamW."""
    checkpoint_every_steps: PositiveInt = 50
    """Optimiser steps between two checkpoints."""
    max_restarts: NonNegativeInt = 2
    """How often training may start again from its last checkpoint after a worker is lost."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the passes. With bf16, parameters, gradients and optimizer states stay in 32 bits."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """The largest norm of the whole gradient; a longer one is scaled down to it. null: as long as it is."""
    compile: bool = False
    """Compile each block of the model with torch.compile."""
    early_stop: EarlyStopConfig | None = None
    """When to end early. null: never."""
    verify: bool = False
    """Check the plan before the first step: the loss contract, its loss against that of one process, and what its ranks
    communicate."""
    trace_steps: NonNegativeInt = 0
    """Steps, after the first, of which every rank writes a trace that opens in Perfetto. 0: none."""


class PlanConfig(Section):
    """What to pin in the parallel plan; null leaves the choice to the planner."""

    file: Text | None = None
    """A plan file, as `heliostat plan --json` writes it: that plan is run as it is, and nothing is searched."""
    num_stages: PositiveInt | None = None
    """Stages of the pipeline."""
    data_parallel: PositiveInt | None = None
    """Replicas of every stage."""
    tensor_parallel: PositiveInt | None = None
    """Devices that share every replica: a power of two."""
    sequence_parallel: bool | None = None
    """Whether tensor-parallel devices also share what they do not compute together."""
    schedule: Schedule | None = None
    """The order of passes in a pipeline; none asks for one stage."""
    chunks: PositiveInt | None = None
    """Parts of the model on every stage, of schedule interleaved."""
    micro_batch: PositiveInt | None = None
    """Samples in one forward pass of the busiest replica of every stage."""
    zero: Zero | None = None
    """What replicas share: 0 nothing, 1 optimizer states, 2 gradients too, 3 parameters too."""
    recompute: Recompute | None = None
    """Which activations the backward pass makes anew."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        pinned = [name for name, value in self if value is not None and name != "file"]
        if self.file is not None and pinned:
            raise ValueError(f"a plan from a file is run as it is, but {', '.join(pinned)} is pinned")
        return self


class TuneConfig(Section):
    """The search for better parameters, and what better means."""

    trials: NonNegativeInt
    """How many sets of parameters to try; 0 for no search."""
    epochs: PositiveInt = 1
    """Passes over the training split that a trial may take at most."""
    space: dict[str, Domain] = Field(default_factory=dict)
    """What to vary: `train.lr`, `train.weight_decay` or `train.params.NAME`, each with the values it may take."""
    metric: Text
    """A metric of the task, measured on the validation split. It also chooses the best checkpoint in training."""
    mode: Literal["max", "min"]
    """Whether more or less of the metric is better."""


class RegisterConfig(Section):
    """Under which name the best model enters the registry."""

    model: Name
    """Registered model name."""
    alias: Alias = "champion"
    """The alias that moves to the new version; the endpoint serves this alias."""


class ServeConfig(Section):
    """The HTTP endpoint."""

    host: Text = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network of this machine."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """TCP port."""
    replicas: PositiveInt = 1
    """Copies of the model that answer."""


class SmokeConfig(Section):
    """The check that the endpoint answers what the model says."""

    rows: PositiveInt = 200
    """Rows of the test split to send; or prompts made from so many."""
    tolerance: NonNegativeFloat = 1e-5
    """Largest difference allowed between an answer and the offline prediction."""


class ExperimentConfig(Section):
    """One experiment, from raw data to a served model."""

    name: Name
    """Name of the experiment: its runs and its data carry it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random: initial weights, the order of samples, the search."""
    store: Annotated[Path, Strict(strict=False)] = Path(".heliostat")
    """Directory for everything the experiment keeps, relative to the current directory."""
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    data: DataConfig
    train: TrainConfig
    plan: PlanConfig = PlanConfig()
    tune: TuneConfig
    # a pydantic model already has a method `register`, inherited from ABCMeta
    registry: RegisterConfig = Field(alias="register")
    serve: ServeConfig = ServeConfig()
    smoke: SmokeConfig = SmokeConfig()
