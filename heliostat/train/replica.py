"""One rank's copy of the model and its training step: the same code in a run, in a trial and in a calibration.

gradient = sum of the losses over all ranks and micro-batches / their global count
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from heliostat.errors import TrainingFailure, UserError
from heliostat.train import group
from heliostat.train.gradients import GradientSum
from heliostat.train.slowdown import Repeater, factor_here
from heliostat.train.task import Batch, Task, Tensors


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, and where its time went."""

    loss: float
    """Mean over the global batch."""
    passes_s: float
    """Forward and backward."""
    sync_s: float
    """Waiting for the other ranks, and for the bytes that no compute hid."""
    update_s: float

    @property
    def compute_s(self) -> float:
        """All but the waiting."""
        return self.passes_s + self.update_s


class Replica:
    """Model, gradients and AdamW of one rank.

    Raises:
        UserError: the model has nothing to train.

    """

    def __init__(self, task: Task, *, weight_decay: float) -> None:
        self.task = task
        self.model = task.model()
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not parameters:
            raise UserError(f"the model of {type(task).__name__} has no trainable parameter")
        self._gradients = GradientSum(parameters)
        self._repeater = Repeater(factor_here(), self.model)
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=weight_decay, fused=True)

    def step(
        self, tensors: Tensors, rows: Tensor, *, number: int, micro_batch: int, learning_rate: float
    ) -> StepResult:
        """Train on `rows` of `tensors`, this rank's share of a global batch, in parts of at most `micro_batch` rows.

        `number` of the step is for messages alone.

        Raises:
            TrainingFailure: a loss or a gradient that is not finite, on all ranks alike and before the update; or the
                task's loss raises or breaks its contract, on this rank.

        """
        started = time.perf_counter()
        own, totals, works = self._accumulate(tensors, torch.split(rows, micro_batch), number)
        passed = time.perf_counter()
        for work in works:
            work.wait()
        self._gradients.finish()
        synced = time.perf_counter()
        loss_sum, count = totals.tolist()
        if not self._gradients.divide(count) or not math.isfinite(loss_sum):
            raise _not_finite(number, loss_sum / count, own)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate
        self.optimizer.step()
        updated = time.perf_counter()
        return StepResult(
            loss=loss_sum / count, passes_s=passed - started, sync_s=synced - passed, update_s=updated - synced
        )

    def _accumulate(
        self, tensors: Tensors, parts: Sequence[Tensor], number: int
    ) -> tuple[float, Tensor, Iterable[dist.Work]]:
        """Forward and backward over all micro-batches: this rank's loss sum, and the global sums on their way."""
        self.model.train()
        self._gradients.zero()
        totals = torch.zeros(2, dtype=torch.float64)
        for part in parts[:-1]:
            self._loss(select(tensors, part), number, totals).backward()  # type: ignore[no-untyped-call]
        loss = self._loss(select(tensors, parts[-1]), number, totals)
        own = totals[0].item()
        works = group.start_sum(totals)
        self._gradients.send_when_ready()
        loss.backward()  # type: ignore[no-untyped-call]
        return own, totals, works

    def _loss(self, part: Batch, number: int, totals: Tensor) -> Tensor:
        where = f"step {number}, rank {group.rank()}"
        self._repeater.repeat(
            len(next(iter(part.values()))),
            lambda num_rows: loss_of(self.task, self.model, select(part, slice(num_rows)), where=where)[0],
        )
        loss, count = loss_of(self.task, self.model, part, where=where)
        count = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
        if not (isinstance(count, int | float) and math.isfinite(count) and count > 0):
            got = f"a count that is {_shown(count)}"
            raise _broken_contract(self.task, got, ("the count must be a positive number",))
        totals += torch.tensor([loss.item(), count], dtype=torch.float64)
        return loss


def warm_up() -> None:
    """Make torch load what it loads at its first backward pass and update: 200 MB that no model asked for."""
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()


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


def _broken_contract(task: Task, got: str, causes: tuple[str, ...]) -> TrainingFailure:
    return TrainingFailure(
        f"{type(task).__name__}.loss must return (sum of the losses, how many they are)",
        got=got,
        causes=causes,
        next_step="return for example (F.cross_entropy(logits, labels, reduction='sum'), len(labels))",
    )


def _not_finite(number: int, loss: float, own: float) -> TrainingFailure:
    """Every rank comes here in the same step, because the sums are the same on all."""
    culprits = [rank for rank, value in enumerate(group.gather(own)) if not math.isfinite(value)]
    what = "loss" if culprits else "gradient"
    return TrainingFailure(
        f"the {what} is not a finite number",
        where=f"step {number}" + (f", rank {', '.join(map(str, culprits))}" if culprits else ""),
        got=f"loss {loss}",
        causes=("the learning rate is too high", "a row of this batch holds an extreme value"),
        next_step="lower train.lr; the checkpoints of the steps before are kept",
    )


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
