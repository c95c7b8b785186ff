"""The last word on a draft: predicted exactly, as `predict` does, and refused if a device's memory does not hold it.

Remembers what it has judged, counts what it refuses by reason, and keeps the best.
"""

from collections import Counter
from typing import NamedTuple

from heliostat.placement.constraints import Constraints
from heliostat.placement.memory import replica_memory
from heliostat.placement.prediction import Prediction, prediction_of
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.costs import Costs
from heliostat.placement.search.draft import Draft, strategy_of
from heliostat.placement.step_time import StepPrediction, predict_step
from heliostat.placement.strategy import Strategy

WAITING: dict[Schedule, float] = {"none": 1.0, "1f1b": 1.0, "gpipe": 1.0, "interleaved": 1.0, "zero-bubble": 0.4}
"""Part of 1F1B's waiting that is left, with one chunk; ZB-H1 leaves a third where all passes take equal times."""


class Verdict(NamedTuple):
    """A draft that fits."""

    worth: float
    step_s: float
    draft: Draft

    @property
    def num_devices(self) -> int:
        """That the plan uses."""
        return sum(stage.shape.width * stage.shape.tensor for stage in self.draft.stages)

    @property
    def key(self) -> tuple[object, ...]:
        """Orders verdicts, the best first; among equals fewer devices, fewer stages, then any fixed order."""
        return (float(f"{self.worth:.9e}"), self.num_devices, len(self.draft.stages), self.draft)


class Judge:
    """One search's memory of verdicts."""

    def __init__(self, costs: Costs, wanted: Constraints) -> None:
        self.costs, self.wanted = costs, wanted
        self.prices = wanted.prices(costs.ground.kinds)
        self.verdicts: dict[Draft, Verdict | None] = {}
        self.refused = Counter[str]()
        self.best: Verdict | None = None
        self.num_passes = 0
        """Simulated so far."""

    @property
    def bar(self) -> float:
        """The worth to beat."""
        return self.best.worth if self.best else float("inf")

    def try_(self, draft: Draft) -> Verdict | None:
        """Judge `draft`, unless it was judged before."""
        if draft not in self.verdicts:
            self.verdicts[draft] = self._judge(draft)
        return self.verdicts[draft]

    def guess(self, draft: Draft) -> float:
        """The worth of `draft` with the pipeline in closed form: not simulated, and blind to memory.

        The closed form is that of 1F1B; of the time in which even the busiest stage waits, other schedules keep a part.
        """
        step = self._step(draft, self._strategy(draft), exact=False)
        waiting_s = min(stage.bubble_s for stage in step.stages)
        step_s = step.step_s - (1 - WAITING[draft.schedule] / draft.chunks) * waiting_s
        return self.wanted.worth(step_s, draft.price(self.prices))

    def prediction(self, draft: Draft) -> Prediction:
        """What `predict` says of `draft`."""
        strategy = self._strategy(draft)
        return prediction_of(self.costs.chain.workload, strategy, self._step(draft, strategy))

    def _strategy(self, draft: Draft) -> Strategy:
        return strategy_of(draft, self.costs.ground.kinds, self.wanted.global_batch, self.wanted.execution)

    def _step(self, draft: Draft, strategy: Strategy, *, exact: bool = True) -> StepPrediction:
        hardware = self.costs.ground.hardware([stage.shape for stage in draft.stages])
        return predict_step(self.costs.chain.workload, strategy, hardware, self.costs.timer, exact=exact)

    def _judge(self, draft: Draft) -> Verdict | None:
        self.num_passes += 2 * draft.num_rounds * len(draft.stages) * draft.chunks
        strategy = self._strategy(draft)
        step = self._step(draft, strategy)
        if not self._fits(strategy, step.in_flight):
            return None
        verdict = Verdict(self.wanted.worth(step.step_s, draft.price(self.prices)), step.step_s, draft)
        if self.wanted.is_late(step.step_s):
            self.refused["slower than the target"] += 1
        if self.best is None or verdict.key < self.best.key:
            self.best = verdict
        return verdict

    def _fits(self, strategy: Strategy, in_flight: tuple[int, ...]) -> bool:
        memory = replica_memory(self.costs.chain.workload, strategy, in_flight)
        limits = dict(zip(self.costs.ground.kinds, self.costs.ground.memory_bytes, strict=True))
        too_small = {
            replica.device_kind
            for stage, uses in zip(strategy.stages, memory, strict=True)
            for replica, use in zip(stage.replicas, uses, strict=True)
            if use.total > limits[replica.device_kind]
        }
        for kind in too_small:
            self.refused[f"a plan that the memory of {kind} does not hold"] += 1
        return not too_small
