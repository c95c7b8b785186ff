"""How long every block of a model takes on this device: real passes, timed from the outside of each block.

A block's forward pass lasts from when its first module is called until the next block's is; its backward pass from when
the gradient of what it handed on is there until that of what it was given is. So the blocks' times add up to the whole
pass, and what runs between modules belongs to the block before it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.train.apply.look import NUM_EXAMPLES, blocks_of
from heliostat.train.apply.precision import computing_in
from heliostat.train.execution import Precision
from heliostat.train.fitting import fit_line, rounds_until
from heliostat.train.rows import checked_loss, select
from heliostat.train.slowdown import factor_here
from heliostat.train.step_timing import BlockLine
from heliostat.train.task import Batch, Task, Tensors

BUDGET_S = 2.0
"""Time for the passes, after a first round that warms up."""
SHORTEST_S = 1e-7
"""A clock's tick."""
Passes = tuple[list[float], list[float]]
"""Seconds of the forward passes, and of the backward passes."""


def measure_blocks(
    task: Task, tensors: Tensors, *, micro_batches: Sequence[int], precision: Precision = "fp32"
) -> tuple[BlockLine, ...]:
    """Time the passes of every block, in several sizes that take turns, so that drift hits all alike.

    An emulated device's blocks take so many times as long as it is slow.

    Args:
        task: whose model it is.
        tensors: rows to draw from.
        micro_batches: at least two different sizes.
        precision: in which the blocks compute.

    Returns:
        By block, as the plan numbers them, the line through its times.
    """
    model = task.model().train()
    entries = [block.modules[:1] for block in blocks_of(task, model, select(tensors, slice(NUM_EXAMPLES)))]
    num_rows = len(next(iter(tensors.values())))
    seen: dict[int, list[Passes]] = {size: [] for size in micro_batches}
    with _watched(model, entries) as marks:
        for number in rounds_until(BUDGET_S):
            for size, passes in seen.items():
                one = _timed(task, model, select(tensors, torch.randint(num_rows, (size,))), marks, precision)
                if number > 0:
                    passes.append(one)
    factor = factor_here()
    return tuple(_line(place, seen, factor) for place in range(len(entries)))


class _Marks:
    """When the passes reached the boundaries between blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.forward = [0.0] * (num_blocks + 1)
        self.backward = [0.0] * (num_blocks + 1)

    def enter(self, place: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        """A block is called; its gradient leaves it when that of what it was given is there."""
        self.forward[place] = time.perf_counter()
        given = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.requires_grad]
        if given:
            given[0].register_hook(partial(self._left, place))  # type: ignore[no-untyped-call]

    def _left(self, place: int, _: Tensor) -> None:
        self.backward[place] = time.perf_counter()


@contextmanager
def _watched(model: nn.Module, entries: Sequence[Sequence[str]]) -> Iterator[_Marks]:
    marks = _Marks(len(entries))
    with ExitStack() as hooks:
        for place, names in enumerate(entries):
            for name in names:
                module = model.get_submodule(name)
                hooks.callback(module.register_forward_pre_hook(partial(marks.enter, place), with_kwargs=True).remove)
        yield marks


def _timed(task: Task, model: nn.Module, rows: Batch, marks: _Marks, precision: Precision) -> Passes:
    num_blocks = len(marks.forward) - 1
    marks.forward, marks.backward = [0.0] * (num_blocks + 1), [0.0] * (num_blocks + 1)
    model.zero_grad(set_to_none=False)
    began = time.perf_counter()
    with computing_in(precision, next(model.parameters()).device):
        loss, _ = checked_loss(task, model, rows, where="timing the blocks")
    marks.forward[0], marks.forward[-1] = began, time.perf_counter()
    began = time.perf_counter()
    loss.backward()  # type: ignore[no-untyped-call]
    marks.backward[0], marks.backward[-1] = time.perf_counter(), began
    return _lengths(marks.forward), [-one for one in _lengths(marks.backward)]


def _lengths(marks: list[float]) -> list[float]:
    """Between neighbours; a boundary that was not seen lies where the one after it does."""
    for place in range(len(marks) - 2, 0, -1):
        marks[place] = marks[place] or marks[place + 1]
    return [after - before for before, after in pairwise(marks)]


def _line(place: int, seen: Mapping[int, Sequence[Passes]], factor: float) -> BlockLine:
    lines = []
    for kind in (0, 1):
        times = [max(median(one[kind][place] for one in passes), SHORTEST_S) for passes in seen.values()]
        lines += [factor * one for one in fit_line(list(seen), times)]
    return BlockLine(forward_s=lines[0], forward_sample_s=lines[1], backward_s=lines[2], backward_sample_s=lines[3])
