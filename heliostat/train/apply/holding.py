"""Which ranks hold which parameter, and over which of them its gradient is summed. Pure.

A parameter is held by the stages whose blocks use it; one that several use, as a tied embedding, by all of them. Every
gradient is the sum over the ranks that hold the parameter, each of which saw samples, blocks or features of its own.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.stage import spans_of
from heliostat.train.apply.team import Ranks, Team
from heliostat.train.profiling.structure import BlockParts


class Holding(NamedTuple):
    """How one rank holds a parameter."""

    ranks: Ranks
    """Over which the gradient is summed."""
    scale: float
    """By which each of them multiplies its gradient before: several may have the same one."""
    num_copies: int
    """Ranks that hold the same values."""
    is_shardable: bool
    """Whether ZeRO may divide it over `ranks`."""


def stages_of(blocks: Sequence[BlockParts], strategy: Strategy, names: Iterable[str]) -> dict[str, frozenset[int]]:
    """For every parameter the stages that use it; the last stage for one that no block uses.

    Args:
        blocks: of the model; none if there is one stage, which then uses everything.
        strategy: of the plan.
        names: of all parameters, each by its first name.
    """
    last = len(strategy.stages) - 1
    if last == 0:
        return dict.fromkeys(names, frozenset({0}))
    using: dict[str, set[int]] = {name: set() for name in names}
    for stage in range(last + 1):
        for span in spans_of(strategy, stage):
            for name in (name for block in blocks[span.first : span.end] for name in block.parameters):
                using[name].add(stage)
    return {name: frozenset(stages or {last}) for name, stages in using.items()}


def holdings(team: Team, stages: Mapping[str, frozenset[int]], divided: Container[str]) -> dict[str, Holding]:
    """How this rank holds its parameters.

    Args:
        team: the ranks.
        stages: as `stages_of` says.
        divided: parameters of which the ranks of a tensor-parallel group have a part each; they have the same gradient
            of all others.
    """
    found = {}
    for name, using in stages.items():
        if team.role.stage not in using:
            continue
        everyone = tuple(rank for rank, role in enumerate(team.roles) if role.stage in using)
        peers = team.replicas(team.role.stage, team.role.tensor)
        tensor = team.stage.ranks_per_replica
        if len(using) > 1:
            found[name] = Holding(everyone, 1.0 / tensor, len(everyone), is_shardable=False)
        else:
            copies = len(peers) if name in divided else len(everyone)
            found[name] = Holding(peers, 1.0, copies, is_shardable=True)
    return found


def groups_of(team: Team, stages: Mapping[str, frozenset[int]]) -> set[Ranks]:
    """Every set of ranks that any rank needs a group for, the same on all ranks."""
    found: set[Ranks] = set()
    for number, stage in enumerate(team.strategy.stages):
        found |= {team.replicas(number, tensor) for tensor in range(stage.ranks_per_replica)}
        found |= {team.mates(role) for role in team.roles if role.stage == number}
    for using in {*stages.values(), *(frozenset({number}) for number in range(len(team.strategy.stages)))}:
        found.add(tuple(rank for rank, role in enumerate(team.roles) if role.stage in using))
    return found
