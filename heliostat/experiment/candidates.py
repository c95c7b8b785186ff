"""Trained models that compete to be registered: the main run's, and the sweep's best."""

from collections.abc import Sequence
from typing import Any, Literal

from heliostat.values import Frozen


class Candidate(Frozen):
    """A trained model and all that must be known of it to register it."""

    source: str
    """`train`, or the trial's name."""
    params: dict[str, Any]
    """Of the task."""
    metrics: dict[str, float]
    """On the validation split."""
    checkpoint: str
    plan: str
    """How it was trained, in a line."""
    run_id: str
    """Its MLflow run."""


def best(candidates: Sequence[Candidate], metric: str, mode: Literal["max", "min"]) -> Candidate:
    """The candidate with the best `metric`; the earlier one of equals."""
    sign = 1 if mode == "max" else -1
    return max(candidates, key=lambda candidate: sign * candidate.metrics[metric])
