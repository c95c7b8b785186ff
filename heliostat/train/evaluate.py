"""Predictions and metrics of a model over many rows, on one rank or shared among all."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heliostat.errors import TrainingFailure
from heliostat.train import checkpoint, group
from heliostat.train.replica import select
from heliostat.train.task import Arrays, Task, Tensors


def tensors_of(arrays: Arrays) -> Tensors:
    """The arrays as tensors; one is copied only where torch cannot share its memory."""
    return {name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in arrays.items()}


def restore(task: Task, path: str | Path) -> nn.Module:
    """The task's model with the weights of the committed checkpoint `path`, in evaluation mode.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to another model.

    """
    model = task.model()
    checkpoint.load_into(model, path)
    return model.eval()


def predict(task: Task, model: nn.Module, arrays: Arrays, *, micro_batch: int = 4096) -> NDArray[Any]:
    """Predictions (n,) or (n, k) for all n rows of `arrays`, in their order."""
    return _predict(task, model, tensors_of(arrays), micro_batch)


def evaluate(
    task: Task, model: nn.Module, tensors: Tensors, *, shares: Sequence[int], micro_batch: int
) -> dict[str, float]:
    """The task's metrics over all rows, on every rank: rank r predicts a part in proportion to `shares[r]`.

    Raises:
        TrainingFailure: a metric is not a finite number.

    """
    group.copy_from_first(model, buffers_only=True)
    num_rows = len(tensors["label"])
    edges = _edges(num_rows, shares)
    own = _predict(task, model, select(tensors, slice(*edges[group.rank() : group.rank() + 2])), micro_batch)
    predictions = np.concatenate(group.gather(own))
    return _finite(task, task.metrics(predictions, tensors["label"].numpy()))


@torch.inference_mode()
def _predict(task: Task, model: nn.Module, tensors: Tensors, micro_batch: int) -> NDArray[Any]:
    model.eval()
    num_rows = len(next(iter(tensors.values())))
    parts = [
        task.predict(model, select(tensors, slice(start, start + micro_batch)))
        for start in range(0, num_rows, micro_batch)
    ]
    return torch.cat(parts).numpy()


def _edges(num_rows: int, shares: Sequence[int]) -> list[int]:
    """Where the parts begin and end when `num_rows` are divided in proportion to `shares`."""
    return [int(edge) for edge in np.rint(np.cumsum([0, *shares]) / sum(shares) * num_rows)]


def _finite(task: Task, metrics: dict[str, float]) -> dict[str, float]:
    wrong = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if wrong:
        raise TrainingFailure(
            f"{type(task).__name__}.metrics must return finite numbers",
            got=str(wrong),
            causes=("the validation split holds one class only", "predictions that are not numbers"),
        )
    return {name: float(value) for name, value in metrics.items()}
