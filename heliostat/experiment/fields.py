"""What the sections of an experiment file are made of: kinds of text and number, and the domains of a search."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, PositiveFloat, Strict, Tag

from heliostat.values import Frozen

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_ALIAS = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_ADDRESS = r"^(local|auto|[^\s:/]+:[0-9]{1,5})$"
_URI = r"^[a-z][a-z0-9+.-]*://\S+$"
REFERENCE_PATTERN = r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[^:]*\.py):[A-Za-z_]\w*$"
PATTERNS = {
    _NAME: "must be at most 64 letters, digits, '.', '_' and '-', and begin with a letter or a digit",
    _ALIAS: "must be at most 64 letters, digits, '_' and '-', and begin with a letter or a digit",
    _ADDRESS: "must be 'local', 'auto' or 'host:port'",
    _URI: "must be a URI, such as 'http://tracking.example:5000'",
    REFERENCE_PATTERN: "must be 'package.module:name' or './file.py:name'",
}
"""What each regular expression says, in words."""


class Section(Frozen):
    """A part of the experiment file. No value is converted: `"4"` is not a number and `true` is not 1."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True, serialize_by_alias=True)


def _increasing(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("must be [low, high] with low below high")
    return bounds


def _not_reserved(alias: str) -> str:
    if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError("is a name that the model registry keeps for itself")
    return alias


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=_NAME)]
"""Fit for directories, experiments and registered models."""
Alias = Annotated[str, Field(pattern=_ALIAS), AfterValidator(_not_reserved)]
"""MLflow refuses dots, `latest` and version numbers."""
Address = Annotated[str, Field(pattern=_ADDRESS)]
Uri = Annotated[str, Field(pattern=_URI)]
Reference = Annotated[str, Field(pattern=REFERENCE_PATTERN)]
LearningRate = Annotated[float, Field(gt=0)]
WeightDecay = Annotated[float, Field(ge=0)]

# YAML has no tuples: in these fields alone a list becomes one
_FloatRange = Annotated[tuple[float, float], Strict(strict=False), AfterValidator(_increasing)]
_PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Strict(strict=False), AfterValidator(_increasing)]
_IntRange = Annotated[tuple[int, int], Strict(strict=False), AfterValidator(_increasing)]


class Uniform(Section):
    """Any number from low up to, but not including, high; all equally likely."""

    uniform: _FloatRange
    """[low, high]"""


class LogUniform(Section):
    """Any positive number from low up to, but not including, high; every power of ten equally likely."""

    loguniform: _PositiveRange
    """[low, high]"""


class RandInt(Section):
    """Any whole number from low up to, but not including, high."""

    randint: _IntRange
    """[low, high]"""


class Choice(Section):
    """One of the values in a list."""

    choice: Annotated[tuple[Any, ...], Strict(strict=False), Field(min_length=1)]
    """The values to choose from."""


def _kind(domain: object) -> str | None:
    kinds = list(domain) if isinstance(domain, dict) else list(getattr(type(domain), "model_fields", ()))
    return kinds[0] if len(kinds) == 1 else None


Domain = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _kind,
        custom_error_type="domain",
        custom_error_message="must be one of uniform: [low, high], loguniform: [low, high], randint: [low, high] "
        "and choice: [value, ...]",
    ),
]
"""The values that a parameter may take in a search."""
