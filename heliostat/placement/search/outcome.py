"""What a search found. Pure values."""

from pydantic import NonNegativeInt

from heliostat.placement.prediction import Prediction
from heliostat.placement.strategy import Strategy
from heliostat.values import Frozen


class Found(Frozen):
    """A plan and what it takes."""

    strategy: Strategy
    prediction: Prediction
    worth: float
    """By the objective: seconds per step, price per step, or devices (and a part of one for the time)."""


class Outcome(Frozen):
    """The best plan, and what was beside it."""

    best: Found
    runners_up: tuple[Found, ...]
    """The best first; distinct in cuts, devices, degrees or schedule, unless there are only variants of `best`."""
    refused: dict[str, NonNegativeInt]
    """How many plans, or parts of plans, were refused, by reason."""
    num_candidates: NonNegativeInt
    """Plans that were predicted exactly."""
    cut_by_budget: bool
    """Whether the time was up before the search was through."""
