"""Steps of the plainest training loop, for the losses that a plan must have."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from heliostat.train.rows import checked_loss, select
from heliostat.train.task import Task, Tensors


class Outcome(NamedTuple):
    """What one step gave."""

    loss: float
    """Mean over the batch."""
    gradient_norm: float
    """Before clipping."""


def one_process(
    task: Task,
    tensors: Tensors,
    steps: Sequence[Sequence[Tensor]],
    *,
    learning_rate: float,
    weight_decay: float,
    clip_norm: float | None,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Outcome]:
    """The losses of AdamW on a new model of the task.

    Args:
        task: its model is drawn from torch's generator.
        tensors: all rows.
        steps: for each step the indices of its rows, in as many parts as it takes passes.
        learning_rate: of every step.
        weight_decay: of AdamW.
        clip_norm: limit of the gradients' norm.
        dtype: in which the passes compute.
        device: of the model.
    """
    model = task.model().to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adamw = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    found = []
    for parts in steps:
        adamw.zero_grad()
        total, count = 0.0, 0.0
        for rows in parts:
            batch = {name: tensor.to(device) for name, tensor in select(tensors, rows).items()}
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss, own = checked_loss(task, model, batch, where="verifying the plan on one process")
            loss.backward()  # type: ignore[no-untyped-call]
            total, count = total + loss.item(), count + own
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= count
        norm = torch.nn.utils.clip_grad_norm_(parameters, torch.inf if clip_norm is None else clip_norm)
        adamw.step()
        found.append(Outcome(total / count, norm.item()))
    return found
