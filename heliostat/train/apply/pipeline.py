"""One rank's passes of a step, in the order that the planner simulates.

Gradients of all micro-batches add up in the parameters; nothing is divided here. A zero-bubble schedule's backward pass
makes the gradients of the inputs at once, those of the parameters later. While one pass computes, what the next one
waits for is already on its way.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

# The same split of a backward pass that torch's own zero-bubble schedules use.
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from heliostat.placement.schedule import Step, order
from heliostat.train.apply.chain import Leaf
from heliostat.train.apply.exchange import Arriving, Exchange, Way
from heliostat.train.apply.roles import Interval, Round
from heliostat.train.apply.stage import Stage, Whole
from heliostat.train.apply.team import Team
from heliostat.train.slowdown import Pace
from heliostat.train.trace import mark, name_of

Run = Callable[[nn.Module, Interval], Any]
"""Runs the model on an interval of samples: in training its loss, otherwise its predictions."""


class Watcher(Protocol):
    """Told what a rank is about to do."""

    def after_loss(self, result: Any) -> None:
        """What the run of one round returned, on the last stage."""

    def before_backward(self, *, is_last: bool) -> None:
        """A backward pass, of the step's last round or of one before."""


class _Flying(NamedTuple):
    """A micro-batch between its forward and its backward pass."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


class Pipeline:
    """The passes of one rank. All ranks of a team make theirs together.

    Args:
        team: the ranks.
        stage: this rank's part of the model.
        num_chunks: parts of the chain that it is.
        device: of this rank.
        joins_all: whether every pass is a collective of the replicas. One that has no samples in a round then passes
            one of the others' through, and its gradient is zero.
        pace: of the passes in training.
    """

    def __init__(
        self, team: Team, stage: Stage | Whole, num_chunks: int, device: torch.device, *, joins_all: bool, pace: Pace
    ) -> None:
        strategy = team.strategy
        self._device, self._joins_all, self._pace = device, joins_all, pace
        self._team, self._stage, self._num_chunks = team, stage, num_chunks
        self._num_stages = len(strategy.stages)
        self._last = self._num_stages * num_chunks - 1
        self._exchange = Exchange(team, self._last + 1, device)
        self._separate = strategy.schedule == "zero-bubble"
        self._flying: dict[tuple[int, int], _Flying] = {}
        self._late: dict[tuple[int, int], Any] = {}
        self._arriving: dict[Step, Arriving] = {}
        self.waited_s = 0.0
        """For other stages, in the passes of the last step."""

    def train(self, rounds: Sequence[Round], run: Run, watcher: Watcher) -> None:
        """All passes of a step.

        Args:
            rounds: of the step.
            run: gives the loss of an interval as the first of what it returns.
            watcher: told before each pass.
        """
        self.waited_s = 0.0
        steps, numbered = self._steps(rounds), {one.number: one for one in rounds}
        last_backward = max((at for at, step in enumerate(steps) if step[0] == "B"), default=None)
        for at, step in enumerate(steps):
            with mark(name_of(step)):
                self._expect(steps[at : at + 2], numbered)
                if step[0] == "B":
                    watcher.before_backward(is_last=at == last_backward)
                self._pass(step, rounds[step[2]], run, watcher)
        self._exchange.finish()
        assert not self._flying
        assert not self._late

    def predict(self, rounds: Sequence[Round], run: Run) -> list[Any]:
        """Forward passes alone; what `run` returned of every round, nothing but on the last stage."""
        results = []
        for one in rounds:
            for chunk in range(self._num_chunks):
                step: Step = ("F", chunk, one.number)
                if not self._own(one).size:
                    if self._joins_all:
                        self._join(step, run)
                    continue
                self._expect([step], {one.number: one})
                inputs = self._arrived(step)
                made = self._run(chunk, one, run, inputs)
                if self._part(chunk) == self._last:
                    results.append(made)
                else:
                    self._send(step, one, made)
        self._exchange.finish()
        return results

    def close(self) -> None:
        """Give the process groups back."""
        self._exchange.close()

    def _steps(self, rounds: Sequence[Round]) -> list[Step]:
        """The passes of this rank: none for rounds in which it has no samples, unless the others need it."""
        strategy, many = self._team.strategy, len(rounds)
        if self._num_stages == 1:
            steps: list[Step] = [step for number in range(many) for step in _in_turn(number)]
        else:
            steps = order(strategy.schedule, self._team.role.stage, self._num_stages, many, self._num_chunks)
        return [step for step in steps if self._joins_all or self._own(rounds[step[2]]).size]

    def _pass(self, step: Step, one: Round, run: Run, watcher: Watcher) -> None:
        kind, chunk, number = step
        if not self._own(one).size:
            self._join(step, run)
        elif kind == "F":
            self._forward(step, one, run, watcher)
        elif kind == "B":
            self._backward(step, one)
        else:
            self._weight(chunk, number)

    def _forward(self, step: Step, one: Round, run: Run, watcher: Watcher) -> None:
        _, chunk, number = step
        inputs = [tensor.requires_grad_() for tensor in self._arrived(step)]
        with self._pace.passing():
            made = self._run(chunk, one, run, inputs)
        if self._part(chunk) == self._last:
            self._flying[chunk, number] = _Flying(inputs, [made[0]])
            watcher.after_loss(made)
        else:
            self._flying[chunk, number] = _Flying(inputs, made)
            self._send(step, one, made)

    def _backward(self, step: Step, one: Round) -> None:
        _, chunk, number = step
        inputs, outputs = self._flying.pop((chunk, number))
        gradients: list[Any] = list(self._arrived(step)) or [None]
        with self._pace.passing():
            found = self._gradients(chunk, number, _Flying(inputs, outputs), gradients)
        if inputs:
            whole = [torch.zeros_like(x) if one is None else one for one, x in zip(found, inputs, strict=True)]
            self._send(step, one, whole)

    def _gradients(self, chunk: int, number: int, flying: _Flying, gradients: Sequence[Any]) -> Sequence[Tensor | None]:
        """The gradients of a pass's inputs; those of the parameters with them, or later."""
        inputs, outputs = list(flying.inputs), list(flying.outputs)
        if self._separate and inputs:
            parameters = [one for one in self._stage.model.parameters() if one.requires_grad]
            own = None if gradients == [None] else list(gradients)
            found, groups = stage_backward_input(outputs, own, inputs, iter(parameters))
            self._late[chunk, number] = (parameters, groups)
            return found
        torch.autograd.backward(outputs, list(gradients))
        if self._separate:
            self._late[chunk, number] = None
        return [tensor.grad for tensor in inputs]

    def _join(self, step: Step, run: Run) -> None:
        """Take part in a pass of the other replicas, with a sample that does not count."""
        kind, chunk, number = step
        if kind == "F":
            takes = self._stage.takes(chunk)
            inputs = [torch.zeros((1, *leaf.shape), dtype=leaf.dtype, device=self._device) for leaf in takes]
            inputs = [tensor.requires_grad_() for tensor in inputs]
            made = self._stage.forward(chunk, lambda model: run(model, Interval(0, 1)), 1, inputs)
            if torch.is_grad_enabled():
                self._flying[chunk, number] = _Flying(inputs, made[:1] if self._part(chunk) == self._last else made)
        else:
            outputs = self._flying.pop((chunk, number)).outputs
            torch.autograd.backward(outputs, [torch.zeros_like(one) for one in outputs])

    def _weight(self, chunk: int, number: int) -> None:
        kept = self._late.pop((chunk, number))
        if kept is not None:
            parameters, groups = kept
            with self._pace.passing():
                stage_backward_weight(iter(parameters), groups)

    def _run(self, chunk: int, one: Round, run: Run, inputs: Sequence[Tensor]) -> Any:
        own = self._own(one)
        return self._stage.forward(chunk, lambda model: run(model, own), own.size, inputs)

    def _expect(self, steps: Sequence[Step], rounds: Mapping[int, Round]) -> None:
        """Begin to receive what these passes wait for."""
        for step in steps:
            kind, chunk, number = step
            way = self._source(step)
            if way is None or kind == "W" or step in self._arriving or not self._own(rounds[number]).size:
                continue
            leaves: Sequence[Leaf] = self._stage.takes(chunk) if kind == "F" else self._stage.gives(chunk)
            self._arriving[step] = self._exchange.receive(way, rounds[number], leaves)

    def _arrived(self, step: Step) -> list[Tensor]:
        arriving = self._arriving.pop(step, None)
        if arriving is None:
            return []
        started = time.perf_counter()
        tensors = arriving.wait()
        self.waited_s += time.perf_counter() - started
        return tensors

    def _send(self, step: Step, one: Round, tensors: Sequence[Tensor]) -> None:
        kind, chunk, _ = step
        part = self._part(chunk)
        if kind == "F":
            self._exchange.send(Way("F", part, (part + 1) % self._num_stages), one, tensors)
        else:
            self._exchange.send(Way("B", part - 1, (part - 1) % self._num_stages), one, tensors)

    def _source(self, step: Step) -> Way | None:
        """Where the input of a pass comes from; None if it is this rank's own."""
        kind, chunk, _ = step
        part = self._part(chunk)
        if kind == "F":
            return Way("F", part - 1, (part - 1) % self._num_stages) if part else None
        return Way("B", part, (part + 1) % self._num_stages) if part < self._last else None

    def _own(self, one: Round) -> Interval:
        return one.spans[self._team.role.stage][self._team.role.replica]

    def _part(self, chunk: int) -> int:
        """The chunk's place in the chain."""
        return chunk * self._num_stages + self._team.role.stage


def _in_turn(number: int) -> tuple[Step, Step]:
    return ("F", 0, number), ("B", 0, number)
