"""Rows of a task's tensors, and the loss contract that every pass over them keeps."""

import math
from typing import Any

from torch import Tensor, nn

from heliostat.errors import TrainingFailure
from heliostat.train.task import Batch, Task, Tensors


def select(tensors: Tensors, rows: Tensor | slice) -> Batch:
    """Some rows of all tensors."""
    return {name: tensor[rows] for name, tensor in tensors.items()}


def loss_of(task: Task, model: nn.Module, batch: Batch, *, where: str) -> tuple[Tensor, Any]:
    """The task's (sum of the losses, their count); the count is not looked at.

    Raises:
        TrainingFailure: the task's code raises, or does not return a pair that begins with a scalar to differentiate.

    """
    try:
        result: object = task.loss(model, batch)
    except Exception as error:
        raise TrainingFailure(
            f"the loss of {type(task).__name__} raised {type(error).__name__}: {error}", where=where
        ) from error
    if not (isinstance(result, tuple) and len(result) == 2):
        causes = ("it returns a mean, or the sum without its count",) if isinstance(result, Tensor) else ()
        raise _broken_contract(task, _shown(result), causes)
    loss, count = result
    if not (isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad):
        raise _broken_contract(task, f"a sum that is {_shown(loss)}", ("the losses of the rows are not summed",))
    return loss, count


def checked_loss(task: Task, model: nn.Module, batch: Batch, *, where: str) -> tuple[Tensor, float]:
    """The task's (sum of the losses, their count).

    Raises:
        TrainingFailure: as `loss_of`, or the count is not a positive number.
    """
    loss, count = loss_of(task, model, batch, where=where)
    count = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
    if not (isinstance(count, int | float) and math.isfinite(count) and count > 0):
        raise _broken_contract(task, f"a count that is {_shown(count)}", ("the count must be a positive number",))
    return loss, float(count)


def _broken_contract(task: Task, got: str, causes: tuple[str, ...]) -> TrainingFailure:
    return TrainingFailure(
        f"{type(task).__name__}.loss must return (sum of the losses, how many they are)",
        got=got,
        causes=causes,
        next_step="return for example (F.cross_entropy(logits, labels, reduction='sum'), len(labels))",
    )


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
