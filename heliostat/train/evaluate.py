"""Predictions of a whole model over many rows, and what their metrics must be."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heliostat.errors import TrainingFailure
from heliostat.train import checkpoint
from heliostat.train.rows import select
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


@torch.inference_mode()
def _predict(task: Task, model: nn.Module, tensors: Tensors, micro_batch: int) -> NDArray[Any]:
    model.eval()
    num_rows = len(next(iter(tensors.values())))
    parts = [
        task.predict(model, select(tensors, slice(start, start + micro_batch)))
        for start in range(0, num_rows, micro_batch)
    ]
    return torch.cat(parts).numpy()


def finite(task: Task, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, if all of them are finite numbers.

    Raises:
        TrainingFailure: one is not.
    """
    wrong = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if wrong:
        raise TrainingFailure(
            f"{type(task).__name__}.metrics must return finite numbers",
            got=str(wrong),
            causes=("the validation split holds one class only", "predictions that are not numbers"),
        )
    return {name: float(value) for name, value in metrics.items()}
