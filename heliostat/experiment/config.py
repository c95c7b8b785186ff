"""The experiment file: how it is loaded.

The models of `sections` are the single truth: validation, defaults, the JSON Schema for editors and its help texts all
come from them. Loading reports every mistake at once and remembers where each value was written. It imports nothing
heavy and none of the user's code.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from heliostat.document import Document, Keys, Mistake, dotted, read
from heliostat.errors import ConfigError, ReferenceNotFound
from heliostat.experiment.fields import PATTERNS, REFERENCE_PATTERN, LearningRate, Section, WeightDecay
from heliostat.experiment.sections import ExperimentConfig
from heliostat.references import absolute, did_you_mean, locate
from heliostat.wording import explain, place

_FILES = (("cluster", "emulate"), ("plan", "file"))
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


def _sections(owner: type[Section] = ExperimentConfig) -> dict[str, type[Section]]:
    """The sections of the file, or of a section of it, by their key there."""
    return {
        field.alias or name: one
        for name, field in owner.model_fields.items()
        for one in (field.annotation, *get_args(field.annotation))
        if isinstance(one, type) and issubclass(one, Section)
    }


def _owner(keys: Keys) -> type[Section]:
    """The section that holds the last of `keys`."""
    owner: type[Section] = ExperimentConfig
    for key in keys[:-1]:
        owner = _sections(owner).get(str(key), owner)
    return owner


def _refusal(path: Path, mistakes: Sequence[Mistake]) -> ConfigError:
    """All mistakes in the order in which they were written, overrides last."""
    lines = [str(mistake) for mistake in sorted(mistakes, key=lambda mistake: mistake.origin.sort_key)]
    return ConfigError(list(dict.fromkeys(lines)), next_step=f"correct them, then: heliostat validate {path}")


def _mistakes(document: Document, error: ValidationError, above: Keys = ()) -> Iterator[Mistake]:
    """What pydantic found in the part of the document at `above`."""
    for details in error.errors():
        keys = (*above, *place(details, _get(document.data, above)))
        known = [field.alias or name for name, field in _owner(keys).model_fields.items()]
        yield Mistake(origin=document.origin(keys), keys=keys, message=explain(details, PATTERNS, known))


def _more_mistakes(document: Document) -> list[Mistake]:
    """What the models cannot see: the reader's own mistakes, files that do not exist, and what contradicts itself."""
    return [
        *document.mistakes,
        *_reference_mistakes(document),
        *_file_mistakes(document),
        *_emulation_mistakes(document),
        *_label_mistakes(document),
        *_space_mistakes(document),
    ]


def _with_absolute_references(document: Document) -> dict[str, Any]:
    data = dict(document.data)
    for section, key in _REFERENCES:
        reference = _absolute_reference(document, (section, key))
        if reference is not None:
            data[section] = {**data[section], key: reference}
    for section, key in _FILES:
        path = _absolute_file(document, (section, key))
        if path is not None:
            data[section] = {**data[section], key: str(path)}
    return data


def _absolute_file(document: Document, keys: Keys) -> Path | None:
    name = _get(document.data, keys)
    return (document.origin(keys).directory / name).resolve() if isinstance(name, str) and name else None


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


def _file_mistakes(document: Document) -> Iterator[Mistake]:
    for keys in _FILES:
        path = _absolute_file(document, keys)
        if path is not None and not path.is_file():
            yield Mistake(origin=document.origin(keys), keys=keys, message=f"there is no file {path}")


def _emulation_mistakes(document: Document) -> Iterator[Mistake]:
    """An emulation is started here."""
    keys: Keys = ("cluster", "emulate")
    address = _get(document.data, ("cluster", "address"))
    if _get(document.data, keys) is not None and address not in (None, "local"):
        message = f"goes with cluster.address local, not with {address}"
        yield Mistake(origin=document.origin(keys), keys=keys, message=message)


def _label_mistakes(document: Document) -> Iterator[Mistake]:
    """Data with features has a label, and data without has none."""
    keys: Keys = ("data", "label")
    features, label = _get(document.data, ("data", "features")), _get(document.data, keys)
    if features is not None and label is None:
        yield Mistake(origin=document.origin(keys), keys=keys, message="is missing")
    elif features is None and label is not None:
        yield Mistake(origin=document.origin(keys), keys=keys, message="goes with data.features, which is missing")


def _space_mistakes(document: Document) -> Iterator[Mistake]:
    space, params = _get(document.data, ("tune", "space")), _get(document.data, ("train", "params"))
    if not space and _get(document.data, ("tune", "trials")) not in (None, 0):
        keys: Keys = ("tune", "space")
        yield Mistake(
            origin=document.origin(keys), keys=keys, message="is missing" if space is None else "must not be empty"
        )
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
