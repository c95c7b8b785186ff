"""Some steps of training under a plan, and one process to compare them with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.pieces import Held
from heliostat.train.task import Task

EXACT = 1e-5
"""Relative: losses in 32 bits under any plan and on one process."""
STEPS, LEARNING_RATE = 4, 1e-2
SETTINGS = EngineSettings(weight_decay=0.01)


class Outcome(NamedTuple):
    """What training has given; the same on all ranks."""

    losses: list[float]
    norms: list[float]
    predictions: NDArray[Any]
    held: dict[str, Held]
    """What this rank has of the model."""

    def distance(self, other: "Outcome") -> float:
        """The largest relative difference of losses and predictions."""
        predictions = np.abs(self.predictions - other.predictions).max() / np.abs(other.predictions).max()
        return max(_relative(self.losses, other.losses), float(predictions))

    def norm_distance(self, other: "Outcome") -> float:
        """The largest relative difference of the gradients' norms."""
        return _relative(self.norms, other.norms)


def assembled(outcomes: Iterable[Outcome]) -> dict[str, Tensor]:
    """The whole model from what the ranks have of it."""
    found: dict[str, Tensor] = {}
    for name, held in (item for one in outcomes for item in one.held.items()):
        tensor = found.setdefault(name, torch.full(held.shape, torch.nan))
        for piece in held.pieces:
            place = tuple(slice(at, at + size) for at, size in zip(piece.offset, piece.values.shape, strict=True))
            tensor[place] = piece.values
    return found


Train = Callable[..., list[Outcome]]
"""Trains a task under a plan; what every rank has got."""


def trained(_: int, task: Task, strategy: Strategy, settings: EngineSettings = SETTINGS) -> Outcome:
    """What one rank gets of `STEPS` steps of AdamW, and of predictions for the validation rows after them."""
    torch.manual_seed(0)
    rows = tensors_of(task.load("train"))
    engine = Engine(task, strategy, example=rows, settings=settings)
    results = []
    for number in range(STEPS):
        order = torch.randperm(len(rows["label"]), generator=torch.Generator().manual_seed(number))
        results.append(
            engine.step(rows, order[: strategy.global_batch], number=number + 1, learning_rate=LEARNING_RATE)
        )
    predictions = engine.predict(tensors_of(task.load("validation")))
    return Outcome(
        losses=[result.loss for result in results],
        norms=[result.gradient_norm for result in results],
        predictions=predictions,
        held=engine.model_held(),
    )


def alone(task: Task, global_batch: int, settings: EngineSettings = SETTINGS) -> Outcome:
    """What one process gets with one micro-batch a step."""
    return trained(0, task, plan(stage(0, 1, [(global_batch, global_batch)])), settings)


def stage(first: int, end: int, shares: Sequence[tuple[int, int]], **how: Any) -> StageStrategy:
    """A stage whose replicas have `shares`: samples and micro-batch."""
    replicas = tuple(ReplicaShare(device_kind="cpu", num_samples=n, micro_batch=m) for n, m in shares)
    return StageStrategy(first_block=first, end_block=end, replicas=replicas, **how)


def plan(*stages: StageStrategy, **how: Any) -> Strategy:
    """A plan of these stages."""
    how = {"schedule": "1f1b" if len(stages) > 1 else "none"} | how
    return Strategy(global_batch=sum(one.num_samples for one in stages[0].replicas), stages=stages, **how)


def _relative(own: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(one - right) / abs(right) for one, right in zip(own, other, strict=True))
