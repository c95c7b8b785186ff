"""The experiment file: what may be in it, and how it is loaded.

The models below are the single truth: validation, defaults, the JSON Schema for editors and its help texts all come
from them. Loading reports every mistake at once and remembers where each value was written. It imports nothing heavy
and none of the user's code.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Strict, TypeAdapter, ValidationError

from heliostat.document import Document, Keys, Mistake, dotted, read
from heliostat.errors import ConfigError, ReferenceNotFound
from heliostat.experiment.fields import (
    PATTERNS,
    REFERENCE_PATTERN,
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
from heliostat.references import absolute, did_you_mean, locate
from heliostat.tune.space import Domain
from heliostat.wording import explain, place


class ClusterConfig(Section):
    """Which Ray cluster the experiment runs on."""

    address: Address = "local"
    """`local` starts Ray on this machine; `auto` joins the cluster that this machine belongs to; or `host:port`."""
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
    features: Reference
    """The FeatureSet that turns raw columns into features, in the data step and in the request path alike."""
    label: Text
    """The column to predict."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What `prepare` receives; its keys are the function's own."""


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


class PlanConfig(Section):
    """What to pin in the parallel plan; null leaves the choice to the planner."""

    data_parallel: PositiveInt | None = None
    """Number of devices that each hold the whole model."""
    micro_batch: PositiveInt | None = None
    """Samples in one forward pass on one device."""


class TuneConfig(Section):
    """The search for better parameters, and what better means."""

    trials: PositiveInt
    """How many sets of parameters to try."""
    epochs: PositiveInt
    """Passes over the training split that a trial may take at most."""
    space: dict[str, Domain] = Field(min_length=1)
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
    """Rows of the test split to send."""
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


_REFERENCES = (("data", "prepare"), ("data", "features"), ("train", "task"))
# a domain's bounds or choices must themselves be values that the field takes
_SEARCHABLE: dict[str, TypeAdapter[Any]] = {
    "train.lr": TypeAdapter(dict[str, list[LearningRate]]),
    "train.weight_decay": TypeAdapter(dict[str, list[WeightDecay]]),
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A valid experiment, and where each of its values was written."""

    config: ExperimentConfig
    origins: Mapping[str, str]
    """Dotted path, in the names of the file -> origin, for every value that was written."""

    def origin(self, path: str) -> str:
        """Where the value at a dotted path comes from: `quickstart.yaml:31:9`, `--set train.lr` or `default`."""
        return self.origins.get(path, "default")


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in the file `path`, with `overrides` (`a.b=c`) on top; file references become absolute.

    Raises:
        ConfigError: everything that is wrong, each `file:line:col: path: message, got VALUE`.
    """
    document = read(path, overrides)
    try:
        config = ExperimentConfig.model_validate(_with_absolute_references(document))
    except ValidationError as error:
        raise _refusal(path, [*_mistakes(document, error), *_more_mistakes(document)]) from None
    if more := _more_mistakes(document):
        raise _refusal(path, more)
    return Experiment(config=config, origins={dotted(keys): str(origin) for keys, origin in document.origins.items()})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment file, for editors.

    A file that extends another may leave the required keys to it, so they are required only without `extends`.
    """
    schema = ExperimentConfig.model_json_schema()
    required: dict[str, Any] = {"required": schema.pop("required"), "properties": {}}
    for name, section in _sections().items():
        if keys := schema["$defs"][section.__name__].pop("required", None):
            required["properties"][name] = {"required": keys}
    schema["properties"]["extends"] = {
        "description": "A file to start from, or several, relative to this one: mappings merge, the rest is replaced.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema | {"if": {"not": {"required": ["extends"]}}, "then": required}


def _sections() -> dict[str, type[Section]]:
    """The sections of the file by their key in it."""
    return {
        field.alias or name: field.annotation
        for name, field in ExperimentConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def _refusal(path: Path, mistakes: Sequence[Mistake]) -> ConfigError:
    """All mistakes in the order in which they were written, overrides last."""
    lines = [str(mistake) for mistake in sorted(mistakes, key=lambda mistake: mistake.origin.sort_key)]
    return ConfigError(list(dict.fromkeys(lines)), next_step=f"correct them, then: heliostat validate {path}")


def _mistakes(document: Document, error: ValidationError, above: Keys = ()) -> Iterator[Mistake]:
    """What pydantic found in the part of the document at `above`."""
    sections = _sections()
    for details in error.errors():
        keys = (*above, *place(details, _get(document.data, above)))
        owner = sections[str(keys[0])] if len(keys) > 1 else ExperimentConfig
        known = [field.alias or name for name, field in owner.model_fields.items()]
        yield Mistake(origin=document.origin(keys), keys=keys, message=explain(details, PATTERNS, known))


def _more_mistakes(document: Document) -> list[Mistake]:
    """What the models cannot see: the reader's own mistakes, files that do not exist, and the paths to search."""
    return [*document.mistakes, *_reference_mistakes(document), *_space_mistakes(document)]


def _with_absolute_references(document: Document) -> dict[str, Any]:
    data = dict(document.data)
    for section, key in _REFERENCES:
        reference = _absolute_reference(document, (section, key))
        if reference is not None:
            data[section] = {**data[section], key: reference}
    return data


def _absolute_reference(document: Document, keys: Keys) -> str | None:
    reference = _get(document.data, keys)
    return absolute(reference, document.origin(keys).directory) if isinstance(reference, str) else None


def _reference_mistakes(document: Document) -> Iterator[Mistake]:
    for keys in _REFERENCES:
        reference = _absolute_reference(document, keys)
        if reference is not None and re.search(REFERENCE_PATTERN, reference):
            try:
                locate(reference)
            except ReferenceNotFound as error:
                yield Mistake(origin=document.origin(keys), keys=keys, message=error.what)


def _space_mistakes(document: Document) -> Iterator[Mistake]:
    space, params = _get(document.data, ("tune", "space")), _get(document.data, ("train", "params"))
    known = [*_SEARCHABLE, *(f"train.params.{name}" for name in (params if isinstance(params, dict) else ()))]
    for path, domain in space.items() if isinstance(space, dict) else ():
        keys = ("tune", "space", path)
        if path not in known:
            hint = did_you_mean(path, known) or f"; known: {', '.join(known)}"
            message = f"is not a value that can be searched{hint}"
            yield Mistake(origin=document.origin(keys), keys=keys, message=message)
        elif path in _SEARCHABLE and isinstance(domain, dict):
            try:
                _SEARCHABLE[path].validate_python(domain, strict=True)
            except ValidationError as error:
                yield from _mistakes(document, error, keys)


def _get(data: object, keys: Keys) -> Any:
    """The value at `keys`, or None where the data goes another way."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data
