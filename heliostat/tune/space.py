"""What a search varies: a domain per parameter, written as in the experiment file (`{loguniform: [0.0005, 0.01]}`)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, PositiveFloat, Strict, Tag

from heliostat.values import Frozen

if TYPE_CHECKING:
    from numpy.random import Generator


class _Domain(Frozen):
    """The values that a parameter may take. No value is converted: `"4"` is not a number and `true` is not 1."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _increasing(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("must be [low, high] with low below high")
    return bounds


# YAML and JSON have no tuples: in these fields alone a list becomes one
_FloatRange = Annotated[tuple[float, float], Strict(strict=False), AfterValidator(_increasing)]
_PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Strict(strict=False), AfterValidator(_increasing)]
_IntRange = Annotated[tuple[int, int], Strict(strict=False), AfterValidator(_increasing)]


class Uniform(_Domain):
    """Any number from low up to, but not including, high; all equally likely."""

    uniform: _FloatRange
    """[low, high]"""

    def sample(self, generator: "Generator") -> float:
        """One value."""
        return float(generator.uniform(*self.uniform))


class LogUniform(_Domain):
    """Any positive number from low up to, but not including, high; every power of ten equally likely."""

    loguniform: _PositiveRange
    """[low, high]"""

    def sample(self, generator: "Generator") -> float:
        """One value."""
        low, high = self.loguniform
        return math.exp(generator.uniform(math.log(low), math.log(high)))


class RandInt(_Domain):
    """Any whole number from low up to, but not including, high."""

    randint: _IntRange
    """[low, high]"""

    def sample(self, generator: "Generator") -> int:
        """One value."""
        return int(generator.integers(*self.randint))


class Choice(_Domain):
    """One of the values in a list."""

    choice: Annotated[tuple[Any, ...], Strict(strict=False), Field(min_length=1)]
    """The values to choose from."""

    def sample(self, generator: "Generator") -> Any:
        """One value."""
        return self.choice[int(generator.integers(len(self.choice)))]


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
"""The values that a parameter may take, as the experiment file writes them."""

Space = Mapping[str, Domain]
"""Dotted path in the experiment file (`train.lr`, `train.params.width`) -> what it may be."""


def sample(space: Space, *, num_trials: int, seed: int) -> list[dict[str, Any]]:
    """The parameters of every trial.

    Each value has a stream of its own, by seed, trial and path: more trials or parameters leave the rest as it is.
    """
    from numpy.random import default_rng

    return [
        {path: domain.sample(default_rng([seed, index, *path.encode()])) for path, domain in space.items()}
        for index in range(num_trials)
    ]
