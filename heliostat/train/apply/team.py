"""The ranks of a run as its plan sees them: this process's role, and process groups for any set of ranks."""

from collections.abc import Iterable, Sequence

import torch.distributed as dist

from heliostat.errors import PlanError
from heliostat.placement.strategy import Strategy
from heliostat.train import group
from heliostat.train.apply.roles import Role, roles

Ranks = tuple[int, ...]


class Team:
    """All ranks of a plan.

    Args:
        strategy: of the plan.
        order: the plan's rank that each process plays; the same numbers if None.

    Raises:
        PlanError: there are more or fewer processes than the plan has ranks.
    """

    def __init__(self, strategy: Strategy, order: Sequence[int] | None = None) -> None:
        if group.size() != strategy.num_ranks:
            raise PlanError(
                f"the plan is for {strategy.num_ranks} ranks", got=f"{group.size()} processes",
                next_step="start as many processes as the plan has ranks, or plan again for those there are",
            )  # fmt: skip
        everyone = roles(strategy)
        self.strategy = strategy
        self.roles: tuple[Role, ...] = tuple(everyone[at] for at in order) if order else everyone
        """By process."""
        self.role = self.roles[group.rank()]
        self.stage = strategy.stages[self.role.stage]
        self._rank = {role: rank for rank, role in enumerate(self.roles)}
        self._groups: dict[Ranks, dist.ProcessGroup] = {}

    def rank(self, stage: int, replica: int, tensor: int) -> int:
        """The process that plays a role."""
        return self._rank[Role(stage, replica, tensor)]

    def replicas(self, stage: int, tensor: int) -> Ranks:
        """The processes with the same part of a stage."""
        return tuple(self.rank(stage, replica, tensor) for replica in range(len(self.strategy.stages[stage].replicas)))

    def mates(self, role: Role) -> Ranks:
        """The processes that share the replica of `role`."""
        size = self.strategy.stages[role.stage].ranks_per_replica
        return tuple(self.rank(role.stage, role.replica, tensor) for tensor in range(size))

    def open(self, sets: Iterable[Ranks]) -> None:
        """Make a group of each of the sets of processes; every process calls this with the same sets."""
        for ranks in sorted(set(sets)):
            if len(ranks) > 1 and ranks not in self._groups:
                made = dist.group.WORLD if len(ranks) == group.size() else dist.new_group(list(ranks))
                assert made is not None
                self._groups[ranks] = made

    def group(self, ranks: Ranks) -> dist.ProcessGroup | None:
        """The group of some processes; None for one that is alone."""
        return self._groups[ranks] if len(ranks) > 1 else None

    def close(self) -> None:
        """Give the groups back, when nothing uses them any more."""
        for own in self._groups.values():
            if own is not dist.group.WORLD:
                dist.destroy_process_group(own)
        self._groups.clear()
