"""One rank's passes of a step, in the order that the planner simulates.

Gradients of all micro-batches add up in the parameters; nothing is divided here. A zero-bubble schedule's backward pass
makes the gradients of the inputs at once, those of the parameters later.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from heliostat.placement.schedule import order
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.exchange import Exchange
from heliostat.train.apply.roles import Role, in_round
from heliostat.train.apply.stage import Stage

Loss = Callable[[nn.Module, int], tuple[Tensor, Any]]
"""The loss sum and count of this rank's part of a round."""


class _Flying(NamedTuple):
    """A micro-batch between its forward and its backward pass."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Pipeline:
    """The passes of one rank."""

    def __init__(self, strategy: Strategy, role: Role, stage: Stage, device: torch.device) -> None:
        self._strategy, self._role, self._stage = strategy, role, stage
        self._num_chunks = len(stage.spans)
        self._num_stages = len(strategy.stages)
        self._share = strategy.stages[role.stage].replicas[role.replica]
        self._exchange = Exchange(strategy, role, device)
        self._steps = (
            order(strategy.schedule, role.stage, self._num_stages, strategy.num_micro_batches, strategy.chunks)
            if self._num_stages > 1
            else [step for number in range(strategy.num_micro_batches) for step in (("F", 0, number), ("B", 0, number))]
        )
        self._flying: dict[tuple[int, int], _Flying] = {}
        self._late: dict[tuple[int, int], Any] = {}
        self._separate = strategy.schedule == "zero-bubble"

    def run(self, loss: Loss) -> tuple[float, float]:
        """All passes of a step; the sums of the losses and of the counts, zero but in the last stage."""
        total, count = 0.0, 0.0
        for kind, chunk, number in self._steps:
            if in_round(self._share, number) == 0:
                continue
            if kind == "F":
                one = self._forward(chunk, number, loss)
                total, count = total + one[0], count + one[1]
            elif kind == "B":
                self._backward(chunk, number)
            else:
                self._weight(chunk, number)
        self._exchange.finish()
        assert not self._flying
        assert not self._late
        return total, count

    def _forward(self, chunk: int, number: int, loss: Loss) -> tuple[float, float]:
        virtual = self._virtual(chunk)
        inputs: list[Tensor] = []
        if virtual:
            before = (virtual - 1) % self._num_stages
            inputs = self._exchange.receive(before, number, self._tag("F", virtual, number), self._stage.takes(chunk))
            inputs = [one.requires_grad_() for one in inputs]
        result = self._stage.forward(chunk, lambda model: loss(model, number), in_round(self._share, number), inputs)
        if self._is_last(virtual):
            total, count = result
            self._flying[chunk, number] = _Flying(inputs, [total])
            return total.item(), float(count)
        self._flying[chunk, number] = _Flying(inputs, result)
        after = (virtual + 1) % self._num_stages
        self._exchange.send(after, number, self._tag("F", virtual + 1, number), result)
        return 0.0, 0.0

    def _backward(self, chunk: int, number: int) -> None:
        virtual = self._virtual(chunk)
        inputs, outputs = self._flying.pop((chunk, number))
        gradients: list[Tensor | None] = [None]
        if not self._is_last(virtual):
            after = (virtual + 1) % self._num_stages
            gradients = list(
                self._exchange.receive(after, number, self._tag("B", virtual, number), self._stage.gives(chunk))
            )
        if self._separate and inputs:
            parameters = [one for one in self._stage.model.parameters() if one.requires_grad]
            own = gradients if gradients != [None] else None
            found, groups = stage_backward_input(outputs, own, inputs, iter(parameters))
            self._late[chunk, number] = (parameters, groups)
        else:
            torch.autograd.backward(outputs, gradients)
            found = [one.grad for one in inputs]
            if self._separate:
                self._late[chunk, number] = None
        if virtual:
            before = (virtual - 1) % self._num_stages
            full = [torch.zeros_like(x) if one is None else one for one, x in zip(found, inputs, strict=True)]
            self._exchange.send(before, number, self._tag("B", virtual - 1, number), full)

    def _weight(self, chunk: int, number: int) -> None:
        kept = self._late.pop((chunk, number))
        if kept is not None:
            parameters, groups = kept
            stage_backward_weight(iter(parameters), groups)

    def _virtual(self, chunk: int) -> int:
        return chunk * self._num_stages + self._role.stage

    def _is_last(self, virtual: int) -> bool:
        return virtual == self._num_stages * self._num_chunks - 1

    def _tag(self, kind: str, virtual: int, number: int) -> int:
        """Of the message that pass `kind` of a virtual stage waits for."""
        passes = self._strategy.num_micro_batches * self._num_stages * self._num_chunks
        place = virtual * self._strategy.num_micro_batches + number
        return place + (passes if kind == "B" else 0)
