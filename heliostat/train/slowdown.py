"""A slow device of an emulated cluster: real forward and backward passes done again, and nothing left of them.

A device that takes 2.5 times as long does each micro-batch twice, and half of its rows once more; what is left of a row
waits for the next micro-batch. Whole passes alone, two and three in turn, would be right on average too, but a step of
one micro-batch would then take 2 or 3 times as long and never 2.5.

The passes come before the one that counts, so that its gradients are late for the other ranks, as a slow device's are.
Only passes are repeated: the optimizer's update and validation take what they take.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from heliostat.cluster.emulated_node import EmulatedNode

MIN_ROWS = 2
"""Batch normalisation cannot train on one row."""


def factor_here() -> float:
    """How many times as long the device of this process takes as the fastest of its cluster; 1.0 without emulation.

    Raises:
        UserError: the description of the emulated node cannot be read, or it has no such device.
    """
    node = EmulatedNode.here()
    return 1.0 if node is None else node.slowdown(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


class Repeater:
    """Repeats passes of `model`, so that rows take `factor` times as long."""

    def __init__(self, factor: float, model: nn.Module) -> None:
        self._extra = factor - 1.0
        self._model = model
        self._owed_rows = 0.0

    def repeat(self, num_rows: int, run_first: Callable[[int], Sequence[Tensor]]) -> None:
        """Do the passes that the next micro-batch is to take longer.

        Gradients, buffers and torch's random numbers are afterwards what they were. For a moment there is a second set
        of gradients in memory. Reentrant checkpointing, which torch does not let `autograd.grad` through, cannot be
        slowed down.

        Args:
            num_rows: rows of the micro-batch.
            run_first: runs its first so many rows; returns what the pass puts out.
        """
        self._owed_rows += self._extra * num_rows
        least = max(1, min(MIN_ROWS, num_rows))
        while (rows := min(int(self._owed_rows), num_rows)) >= least:
            self._owed_rows -= rows
            with _untouched(self._model):
                parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
                made = run_first(rows)
                torch.autograd.grad(made, parameters, [torch.ones_like(one) for one in made], allow_unused=True)


def burn(seconds: float) -> None:
    """Keep this thread's core busy: for passes that cannot be repeated, because other ranks take part in them."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Leave buffers and torch's generators as they are now."""
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with torch.random.fork_rng(list(devices)):
        yield
    with torch.no_grad():
        for module, name, buffer, value in buffers:
            setattr(module, name, buffer.copy_(value))
