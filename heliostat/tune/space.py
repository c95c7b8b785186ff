"""What a search varies: a domain per parameter, written as in the experiment file (`{loguniform: [0.0005, 0.01]}`)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, PositiveFloat, Tag

from heliostat.values import Frozen

if TYPE_CHECKING:
    from numpy.random import Generator


def _increasing(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("must be [low, high] with low below high")
    return bounds


class Uniform(Frozen):
    """Any number from low up to, but not including, high; all equally likely."""

    uniform: Annotated[tuple[float, float], AfterValidator(_increasing)]

    def sample(self, generator: "Generator") -> float:
        """One value."""
        return float(generator.uniform(*self.uniform))


class LogUniform(Frozen):
    """Any positive number from low up to, but not including, high; every power of ten equally likely."""

    loguniform: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_increasing)]

    def sample(self, generator: "Generator") -> float:
        """One value."""
        low, high = self.loguniform
        return math.exp(generator.uniform(math.log(low), math.log(high)))


class RandInt(Frozen):
    """Any whole number from low up to, but not including, high."""

    randint: Annotated[tuple[int, int], AfterValidator(_increasing)]

    def sample(self, generator: "Generator") -> int:
        """One value."""
        return int(generator.integers(*self.randint))


class Choice(Frozen):
    """One of the values in a list."""

    choice: tuple[Any, ...] = Field(min_length=1)

    def sample(self, generator: "Generator") -> Any:
        """One value."""
        return self.choice[int(generator.integers(len(self.choice)))]


def _kind(domain: object) -> str | None:
    names = list(domain) if isinstance(domain, dict) else list(getattr(type(domain), "model_fields", ()))
    return names[0] if len(names) == 1 else None


Domain = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(_kind),
]
"""The values that a parameter may take."""

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
