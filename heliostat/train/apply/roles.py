"""Who does what: the rank of every device of a plan, and which samples each replica has in every round. Pure.

Ranks go stage by stage, replica by replica, tensor-parallel neighbours together, as `Prediction.memory_bytes` does.
All stages work in the same rounds: in every round the same samples go through all stages, divided by their replicas.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from heliostat.errors import PlanError
from heliostat.placement.rounds import disagreements, samples_in
from heliostat.placement.strategy import Strategy


class Role(NamedTuple):
    """What one rank is."""

    stage: int
    replica: int
    """Among those of its stage."""
    tensor: int
    """Its place among the ranks that share the replica."""


class Interval(NamedTuple):
    """Samples `begin` to `end` exclusive."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many."""
        return self.end - self.begin

    def overlap(self, other: "Interval") -> "Interval":
        """What both have; empty if nothing."""
        begin = max(self.begin, other.begin)
        return Interval(begin, max(begin, min(self.end, other.end)))


class Round(NamedTuple):
    """The samples that go through all stages together."""

    number: int
    spans: tuple[tuple[Interval, ...], ...]
    """By stage and replica."""


def roles(strategy: Strategy) -> tuple[Role, ...]:
    """The role of every rank, by rank."""
    return tuple(
        Role(number, replica, tensor)
        for number, stage in enumerate(strategy.stages)
        for replica in range(len(stage.replicas))
        for tensor in range(stage.ranks_per_replica)
    )


def training_rounds(strategy: Strategy) -> tuple[Round, ...]:
    """The rounds of a step, over the global batch.

    Raises:
        PlanError: stages do not agree on the samples of a round.
    """
    wrong = next(disagreements(strategy), None)
    if wrong is not None:
        stage, how = wrong
        raise PlanError(
            f"the replicas of stage {stage} {how}",
            next_step="let the micro-batches of every stage's replicas add up to the same number",
        )
    found: list[Round] = []
    begin = 0
    for number in range(strategy.num_micro_batches):
        sizes = [[samples_in(share, number) for share in stage.replicas] for stage in strategy.stages]
        found.append(Round(number, tuple(_divided(own, begin) for own in sizes)))
        begin += sum(sizes[0])
    return tuple(found)


def forward_rounds(strategy: Strategy, num_samples: int) -> tuple[Round, ...]:
    """Rounds of forward passes over `num_samples`, each replica having its micro-batch of every round but the last."""
    full = [[share.micro_batch for share in stage.replicas] for stage in strategy.stages]
    size = sum(full[0])
    found = []
    for number, begin in enumerate(range(0, num_samples, size)):
        spans = tuple(
            tuple(Interval(min(one.begin, num_samples), min(one.end, num_samples)) for one in _divided(own, begin))
            for own in full
        )
        found.append(Round(number, spans))
    return tuple(found)


def _divided(sizes: Sequence[int], begin: int) -> tuple[Interval, ...]:
    edges = list(accumulate(sizes, initial=begin))
    return tuple(Interval(low, high) for low, high in pairwise(edges))
