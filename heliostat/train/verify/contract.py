"""The loss contract: what a task returns for two groups of rows adds up to what it returns for both together."""

import math
from typing import NamedTuple

import torch
from torch import nn

from heliostat.errors import TrainingFailure
from heliostat.train.rows import checked_loss, select
from heliostat.train.task import Task, Tensors
from heliostat.train.verify.verification import Check, Term

NUM_ROWS = (2, 3)
"""Of the two groups; different, so that a mean of means is no mean."""
TOLERANCE = 1e-4
"""Relative; sums of a few rows in 32 bits agree to about 1e-6."""


class _Result(NamedTuple):
    loss: float
    num_counted: float


def check_contract(task: Task, model: nn.Module, tensors: Tensors, device: torch.device) -> Check:
    """Whether sums and counts of the task's loss add up.

    Args:
        task: with nothing random in it: a `still` one.
        model: of the task, on `device`.
        tensors: at least five rows.
        device: where the model is.

    Raises:
        TrainingFailure: they do not, or the loss raises.
    """
    first, both = NUM_ROWS[0], sum(NUM_ROWS)
    a, b, together = (
        _loss(task, model, tensors, rows, device) for rows in (slice(first), slice(first, both), slice(both))
    )
    terms = (
        Term(what="sum over two groups of rows", expected=together.loss, got=a.loss + b.loss, tolerance=TOLERANCE),
        Term(what="their count", expected=together.num_counted, got=a.num_counted + b.num_counted, tolerance=TOLERANCE),
    )
    if not all(term.passed for term in terms):
        raise _broken(task, a, b, together)
    return Check(
        name="loss contract",
        compared=f"the loss of {NUM_ROWS[0]} and of {NUM_ROWS[1]} rows, with that of all {both}",
        terms=terms,
    )


def _loss(task: Task, model: nn.Module, tensors: Tensors, rows: slice, device: torch.device) -> _Result:
    batch = {name: tensor.to(device) for name, tensor in select(tensors, rows).items()}
    loss, count = checked_loss(task, model, batch, where="verifying the loss contract")
    return _Result(loss.item(), count)


def _broken(task: Task, a: _Result, b: _Result, together: _Result) -> TrainingFailure:
    rows = NUM_ROWS
    mean = (rows[0] * a.loss + rows[1] * b.loss) / sum(rows)
    is_mean = math.isclose(mean, together.loss, rel_tol=TOLERANCE) and not math.isclose(
        a.loss + b.loss, together.loss, rel_tol=TOLERANCE
    )
    got = (
        f"{rows[0]} rows: {a.loss:.6g} of {a.num_counted:g}; {rows[1]} others: {b.loss:.6g} of {b.num_counted:g}; "
        f"together: {together.loss:.6g} of {together.num_counted:g}"
    )
    causes = (
        ("the loss is a mean over the rows: `reduction='mean'` is the default of torch's losses",)
        if is_mean
        else (
            "a part of the loss is a mean, or does not depend on the rows: a penalty",
            "the loss of a row depends on the rows beside it: a contrastive loss",
            "the count is not of what the sum is over",
        )
    )
    return TrainingFailure(
        f"{type(task).__name__}.loss does not add up: the loss of some rows and of others is not that of all of them",
        where="train.verify",
        got=got,
        causes=causes,
        next_step="return the sum of the losses and how many they are: "
        "(F.cross_entropy(logits, labels, reduction='sum'), labels.numel())",
    )
