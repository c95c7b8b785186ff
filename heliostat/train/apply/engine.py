"""One rank's part of a plan at work: the same code in a run, in a trial and in a calibration.

gradient = sum of the losses over all ranks and micro-batches / their global count
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from heliostat.errors import TrainingFailure, UserError
from heliostat.placement.strategy import Strategy
from heliostat.train import group
from heliostat.train.apply.buffers import kept_buffers, share_buffers
from heliostat.train.apply.build import build
from heliostat.train.apply.finite import finding
from heliostat.train.apply.look import NUM_EXAMPLES
from heliostat.train.apply.paced import rest_between_blocks
from heliostat.train.apply.pipeline import Pipeline, Run
from heliostat.train.apply.precision import computing_in
from heliostat.train.apply.roles import Interval, Round, forward_rounds, training_rounds
from heliostat.train.apply.team import Team
from heliostat.train.apply.update import Update
from heliostat.train.execution import Precision
from heliostat.train.pieces import Held, whole
from heliostat.train.rows import checked_loss, select
from heliostat.train.slowdown import Pace, factor_here
from heliostat.train.task import Batch, Task, Tensors
from heliostat.train.trace import mark

if TYPE_CHECKING:  # an engine runs without what stores data
    from heliostat.train.job import TrainSettings


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, and where its time went."""

    loss: float
    """Mean over the global batch."""
    num_elements: float
    """What the loss counted over it."""
    gradient_norm: float
    """Of all gradients together, before clipping."""
    passes_s: float
    """Forward and backward, waiting for other stages included."""
    wait_s: float
    """Of those, waiting for other stages."""
    sync_s: float
    """Waiting for the other ranks' gradients, and for the bytes that no compute hid."""
    update_s: float

    @property
    def compute_s(self) -> float:
        """All but the waiting."""
        return self.passes_s - self.wait_s + self.update_s


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a rank computes, whatever the plan."""

    weight_decay: float = 0.0
    """Of AdamW."""
    precision: Precision = "fp32"
    """With `bf16` blocks compute in 16 bits; parameters, gradients and updates have 32."""
    clip_norm: float | None = None
    """Limit of the gradients' norm; None for no limit."""
    compiles: bool = False
    """Whether repeated blocks are compiled."""

    @classmethod
    def of(cls, settings: "TrainSettings") -> "EngineSettings":
        """Those of a run."""
        return cls(
            weight_decay=settings.weight_decay,
            precision=settings.precision,
            clip_norm=settings.clip_norm,
            compiles=settings.compile,
        )


CPU = torch.device("cpu")
PLAIN = EngineSettings()


class Engine:
    """Model, passes, gradients and AdamW of one rank.

    Args:
        task: what is trained; its model's initial values are drawn from torch's generator, which is to be seeded alike
            on all ranks.
        strategy: the plan; process r plays its rank `order[r]`.
        order: None for r itself.
        example: some rows of the training data.
        settings: how it computes.
        device: of this rank.

    Raises:
        UserError: the model has nothing to train.
        PlanError: the model cannot be divided as the plan says, or there are not as many processes as ranks.
    """

    def __init__(
        self,
        task: Task,
        strategy: Strategy,
        *,
        example: Tensors,
        order: Sequence[int] | None = None,
        settings: EngineSettings = PLAIN,
        device: torch.device = CPU,
    ) -> None:
        self.task, self.strategy, self.device = task, strategy, device
        self.team = Team(strategy, order)
        few = select(example, slice(NUM_EXAMPLES))
        self._part = build(
            task, self.team, few, precision=settings.precision, compiles=settings.compiles, device=device
        )
        self.model = self._part.model
        if not any(parameter.requires_grad for parameter in self.model.parameters()) and self.team.role.stage == 0:
            raise UserError(f"the model of {type(task).__name__} has no trainable parameter")
        self._pace = Pace(factor_here())
        if self._pace.is_slow:
            rest_between_blocks(self._part, self._pace)
        joins_all = self._part.shards.needs_every_round
        self._pipeline = Pipeline(
            self.team, self._part.stage, self._part.num_chunks, device, joins_all=joins_all, pace=self._pace
        )
        self._rounds = training_rounds(strategy)
        self._update = Update(self._part, self.team, weight_decay=settings.weight_decay, clip_norm=settings.clip_norm)
        self._precision = settings.precision
        self._totals = torch.zeros(2, dtype=torch.float64)
        self._totalling: Sequence[dist.Work] = ()
        self._number = 0

    def step(
        self,
        tensors: Tensors,
        indices: Tensor,
        *,
        number: int,
        learning_rate: float,
        rounds: Sequence[Round] | None = None,
    ) -> StepResult:
        """Train on one global batch.

        Args:
            tensors: all rows, the same on all ranks.
            indices: of the rows of the global batch; each rank takes its own of them.
            number: of the step, for messages alone.
            learning_rate: of this step.
            rounds: of another batch size on the same ranks; None for the plan's.

        Raises:
            TrainingFailure: a loss or a gradient that is not finite, on all ranks alike and before the update; or the
                task's loss raises or breaks its contract, on this rank.
        """
        started = time.perf_counter()
        self._begin(number)

        def run(model: nn.Module, own: Interval) -> tuple[Tensor, float]:
            return self._loss(model, tensors, indices[own.begin : own.end])

        rounds = self._rounds if rounds is None else rounds
        self._pipeline.train(rounds, run, self)
        passed = time.perf_counter()
        with mark("sync"):
            self._part.shards.finish()
            for work in self._totalling:
                work.wait()
            loss_sum, count = self._totals.tolist()
            norm = self._update.finish(count)
        synced = time.perf_counter()
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise self._not_finite(rounds, run, loss_sum / count)
        with mark("update"):
            self._update.apply(learning_rate)
        updated = time.perf_counter()
        return StepResult(
            loss=loss_sum / count,
            num_elements=count,
            gradient_norm=norm,
            passes_s=passed - started,
            wait_s=self._pipeline.waited_s,
            sync_s=synced - passed,
            update_s=updated - synced,
        )

    def predict(self, tensors: Tensors) -> NDArray[Any]:
        """The task's predictions (n,) or (n, k) for all n rows, in their order, on every rank."""
        num_rows = len(next(iter(tensors.values())))
        share_buffers(self._part, self.team)
        self.model.eval()

        def run(model: nn.Module, own: Interval) -> tuple[int, NDArray[Any]]:
            with computing_in(self._precision, self.device):
                made = self.task.predict(model, self._rows(tensors, slice(own.begin, own.end)))
            return own.begin, made.float().cpu().numpy()

        with torch.no_grad():
            own = self._pipeline.predict(forward_rounds(self.strategy, num_rows), run)
        self._part.shards.rest()
        parts = dict(part for found in group.gather(own if self.team.role.tensor == 0 else []) for part in found)
        return np.concatenate([parts[begin] for begin in sorted(parts)])

    def model_held(self) -> dict[str, Held]:
        """What this rank holds of the model: its parameters, and the buffers that a checkpoint keeps.

        All ranks call it together: replicas get the buffers of the first.
        """
        share_buffers(self._part, self.team)
        return self._update.parameters_held() | {name: whole(one) for name, one in kept_buffers(self._part).items()}

    def optimizer_held(self) -> dict[str, Held]:
        """What this rank holds of AdamW's state."""
        return self._update.state_held()

    def restored(self, num_steps: int) -> None:
        """Values were read into what `model_held` and `optimizer_held` returned, after so many steps."""
        self._update.restored(num_steps)

    def close(self) -> None:
        """Give the process groups back; every rank calls this, and nothing of the engine afterwards."""
        self._pipeline.close()
        self.team.close()

    def after_loss(self, result: tuple[Tensor, float]) -> None:
        """Add what one round gave; of the ranks that share a replica only one does."""
        loss, count = result
        if self.team.role.tensor == 0:
            self._totals += torch.tensor([loss.item(), count], dtype=torch.float64)

    def before_backward(self, *, is_last: bool) -> None:
        """Send what the last backward pass completes while it runs; the losses are all there by then."""
        self._part.shards.before_backward(is_last=is_last)
        if is_last:
            self._totalling = tuple(group.start_sum(self._totals))
            self._update.before_last_backward()

    def _begin(self, number: int) -> None:
        self._number = number
        self._totals.zero_()
        self._update.begin()
        self.model.train()

    def _loss(self, model: nn.Module, tensors: Tensors, rows: Tensor) -> tuple[Tensor, float]:
        where = f"step {self._number}, rank {group.rank()}"
        with computing_in(self._precision, self.device):
            return checked_loss(self.task, model, self._rows(tensors, rows), where=where)

    def _rows(self, tensors: Tensors, rows: Tensor | slice) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in select(tensors, rows).items()}

    def _not_finite(self, rounds: Sequence[Round], run: Run, loss: float) -> TrainingFailure:
        """Every rank comes here in the same step, because the sums are the same on all."""
        found: list[tuple[int, str]] = []
        with finding(self._part, found.append):
            self._pipeline.predict(rounds, run)
        self._part.shards.rest()
        blocks = sorted(one for own in group.gather(found) for one in own)
        gradients = [name for own in group.gather(self._update.not_finite()) for name in own]
        got = f"; gradients of {', '.join(gradients[:3])}" if gradients and not blocks else ""
        return TrainingFailure(
            f"the {'gradient' if math.isfinite(loss) else 'loss'} is not a finite number",
            where=f"step {self._number}" + (f", block {blocks[0][1]}" if blocks else ""),
            got=f"loss {loss}{got}",
            causes=("the learning rate is too high", "a row of this batch holds an extreme value"),
            next_step="lower train.lr; the checkpoints of the steps before are kept",
        )
