"""Who does what: the rank of every device of a plan, and which samples of a round each replica has. Pure.

Ranks go stage by stage, replica by replica, tensor-parallel neighbours together, as `Prediction.memory_bytes` does.
All stages work in the same rounds: in every round the same samples go through all stages, divided by their replicas.
"""

from typing import NamedTuple

from heliostat.errors import PlanError
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy


class Role(NamedTuple):
    """What one rank is."""

    rank: int
    stage: int
    replica: int
    """Among those of its stage."""
    tensor: int
    """Its place among the ranks that share the replica."""


def roles(strategy: Strategy) -> tuple[Role, ...]:
    """The role of every rank, by rank."""
    found: list[Role] = []
    for number, stage in enumerate(strategy.stages):
        for replica in range(len(stage.replicas)):
            for tensor in range(stage.ranks_per_replica):
                found.append(Role(len(found), number, replica, tensor))
    return tuple(found)


class Interval(NamedTuple):
    """Samples `begin` to `end` of a round."""

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


def in_round(share: ReplicaShare, number: int) -> int:
    """Samples of a replica in round `number`: its micro-batch, fewer in the last round."""
    return min(share.micro_batch, max(0, share.num_samples - number * share.micro_batch))


def intervals(stage: StageStrategy, number: int) -> list[Interval]:
    """Which samples of round `number` each replica of `stage` has."""
    found, begin = [], 0
    for share in stage.replicas:
        found.append(Interval(begin, begin + in_round(share, number)))
        begin = found[-1].end
    return found


def check_rounds(strategy: Strategy) -> None:
    """Refuse stages that do not agree on the samples of every round.

    Raises:
        PlanError: names the round and the stages.
    """
    for number in range(strategy.num_micro_batches):
        sizes = [intervals(stage, number)[-1].end for stage in strategy.stages]
        if len(set(sizes)) > 1:
            raise PlanError(
                f"the stages do not agree on the samples of round {number}",
                got=", ".join(f"stage {at}: {size}" for at, size in enumerate(sizes)),
                next_step="let the micro-batches of every stage's replicas add up to the same number",
            )
