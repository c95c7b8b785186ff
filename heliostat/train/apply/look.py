"""A look at a model before it is divided: its blocks, and what crosses the cuts of a plan.

A twin without values is run on a few rows; a model that looks at values is run on a copy with them.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

from heliostat.errors import PlanError, TrainingFailure
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.chain import Chain, chain_of
from heliostat.train.apply.stage import spans_of
from heliostat.train.profiling.run import meta_twin
from heliostat.train.profiling.structure import BlockParts, structure_of
from heliostat.train.rows import loss_of, select
from heliostat.train.task import Batch, Task, Tensors

NUM_EXAMPLES = 3
"""Rows that a model is run on."""
NEEDS_VALUES = (TrainingFailure, RuntimeError, NotImplementedError)
"""What a model that looks at values raises where there are none."""
T = TypeVar("T")
Look = tuple[tuple[BlockParts, ...], Chain | None]


def look_at(task: Task, model: nn.Module, example: Tensors, strategy: Strategy) -> Look:
    """The blocks of the task's model and, for a plan of several stages, its chain.

    Args:
        task: whose loss is run.
        model: as the task made it; it stays as it is.
        example: at least `NUM_EXAMPLES` rows.
        strategy: the plan.

    Raises:
        PlanError: the plan is for another model.
        TrainingFailure: the task's loss raises or breaks its contract.
    """
    return _on_twin(model, lambda twin: _look(task, twin, example, strategy))


def blocks_of(task: Task, model: nn.Module, example: Tensors) -> tuple[BlockParts, ...]:
    """The blocks of the task's model, as plans number them; raises as `look_at`."""
    return _on_twin(model, lambda twin: _blocks(task, twin, example))


def cuts_of(task: Task, model: nn.Module, example: Tensors) -> tuple[tuple[BlockParts, ...], dict[int, str]]:
    """The blocks of the task's model, and with which of them no stage can begin, and why; raises as `look_at`."""

    def look(twin: nn.Module) -> tuple[tuple[BlockParts, ...], dict[int, str]]:
        blocks = _blocks(task, twin, example)
        try:
            return blocks, dict(chain_of(twin, blocks, partial(_run, task, example)).refused)
        except PlanError as error:
            return blocks, dict.fromkeys(range(1, len(blocks)), error.what)

    return _on_twin(model, look)


def _on_twin(model: nn.Module, look: Callable[[nn.Module], T]) -> T:
    try:
        return look(meta_twin(model))
    except NEEDS_VALUES:
        return look(deepcopy(model))


def _blocks(task: Task, model: nn.Module, example: Tensors) -> tuple[BlockParts, ...]:
    rows = select(example, slice(NUM_EXAMPLES))
    return structure_of(model, rows, lambda twin, batch: _loss(task, twin, dict(batch)))


def _look(task: Task, model: nn.Module, example: Tensors, strategy: Strategy) -> Look:
    blocks = _blocks(task, model, example)
    if len(strategy.stages) == 1:
        return blocks, None
    spans = [span for stage in range(len(strategy.stages)) for span in spans_of(strategy, stage)]
    wanted = max(span.end for span in spans)
    if wanted != len(blocks):
        raise PlanError(
            f"the plan is for a model of {wanted} blocks",
            got=f"{type(model).__name__} with {len(blocks)}: {', '.join(block.name for block in blocks)}",
            causes=("it was made for another model, or for other parameters of this one",),
            next_step="plan again: heliostat plan CONFIG",
        )
    run = partial(_run, task, example)
    return blocks, chain_of(model, blocks, run, {span.first for span in spans})


def _run(task: Task, example: Tensors, model: nn.Module, num_samples: int) -> Tensor:
    device = next(model.parameters()).device
    return _loss(task, model, {name: tensor[:num_samples].to(device) for name, tensor in example.items()})


def _loss(task: Task, model: nn.Module, rows: Batch) -> Tensor:
    return loss_of(task, model, rows, where="looking at the model")[0]
