"""What a search found. Pure values."""

from typing import Any

from pydantic import Field, NonNegativeInt

from heliostat.placement.prediction import Prediction
from heliostat.placement.strategy import Strategy
from heliostat.values import Frozen


class Found(Frozen):
    """A plan and what it takes."""

    strategy: Strategy
    prediction: Prediction
    worth: float
    """By the objective: seconds per step, price per step, or devices (and a part of one for the time)."""


class Searched(Frozen):
    """What was beside the best plan."""

    runners_up: tuple[Found, ...] = ()
    """The best first; distinct in cuts, devices, degrees or schedule, unless there are only variants of the best."""
    refused: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """How many plans, or parts of plans, were refused, by reason."""
    num_candidates: NonNegativeInt = 0
    """Plans that were predicted exactly."""
    cut_by_budget: bool = False
    """Whether the time was up before the search was through."""


class Outcome(Searched):
    """The best plan, and what was beside it."""

    best: Found


class Chosen(Searched):
    """A plan that was taken, and what was beside it."""

    strategy: Strategy
    prediction: Prediction

    @classmethod
    def fields_of(cls, outcome: Outcome) -> dict[str, Any]:
        """The fields of the best plan of `outcome`."""
        beside = {name: getattr(outcome, name) for name in Searched.model_fields}
        return {"strategy": outcome.best.strategy, "prediction": outcome.best.prediction, **beside}
