"""What a plan says that its ranks send, sum, gather and scatter in one step. Pure.

Between stages go the elements that the workload says of the block before the cut, for every sample, and their gradients
back. The gradient of a parameter is summed once over the replicas that hold the same of it. What ZeRO has divided is
gathered once in a step, by stage 3 for the forward and the backward pass of every round; its gradients are scattered
once, by stages 2 and 3 after every backward pass (Rajbhandari et al. 2020). Tensor parallelism sums what each block
says it must, forward and backward, and forward again where it is recomputed.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

from heliostat.placement.spans import spans
from heliostat.placement.strategy import StageStrategy, Strategy
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.train.apply.roles import Role, Round
from heliostat.train.apply.stage import spans_of

Replica = tuple[int, int]
"""Stage, and its place among the stage's replicas."""
Shapes = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Of the pieces of a parameter that a rank holds: where they begin, and how large they are."""


class Amount(NamedTuple):
    """Of messages."""

    messages: int = 0
    elements: int = 0

    def plus(self, messages: int, elements: int) -> "Amount":
        """With some more."""
        return Amount(self.messages + messages, self.elements + elements)


class Sums(NamedTuple):
    """Elements that one rank puts into collectives over replicas."""

    summed: int
    gathered: int
    scattered: int


def between_replicas(
    workload: WorkloadProfile, strategy: Strategy, rounds: Sequence[Round], num_tensors: Mapping[int, int]
) -> dict[tuple[Replica, Replica], Amount]:
    """What goes from each replica to each replica of a neighbouring stage.

    Args:
        workload: the model.
        strategy: the plan.
        rounds: of the step.
        num_tensors: for every block with which a part of the chain begins, how many tensors it is given.
    """
    found: dict[tuple[Replica, Replica], Amount] = {}
    blocks = _blocks(workload)
    lengths = [stage.end_block - stage.first_block for stage in strategy.stages]
    for span, following in pairwise(spans(lengths, strategy.chunks)):
        size, many = blocks[span.end - 1].boundary_elements, num_tensors[span.end]
        for one in rounds:
            for left, right, samples in _overlaps(one, span.stage, following.stage):
                ahead = strategy.stages[following.stage].ranks_per_replica
                back = strategy.stages[span.stage].ranks_per_replica
                for pair, receivers in ((left, right), ahead), ((right, left), back):
                    found[pair] = found.get(pair, Amount()).plus(many * receivers, samples * size * receivers)
    return found


def over_replicas(
    strategy: Strategy,
    roles: Sequence[Role],
    rounds: Sequence[Round],
    held: Sequence[Mapping[str, Shapes]],
    frozen: frozenset[str] = frozenset(),
) -> list[Sums]:
    """What each rank puts into collectives over replicas.

    Args:
        strategy: the plan.
        roles: by rank.
        rounds: of the step.
        held: by rank, the parameters that are there.
        frozen: those of them that are not trained.
    """
    holders: dict[str, set[Replica]] = {}
    for role, own in zip(roles, held, strict=True):
        for name in own:
            holders.setdefault(name, set()).add(role[:2])
    at = {role: rank for rank, role in enumerate(roles)}
    found = []
    for rank, role in enumerate(roles):
        shared = {
            name: [
                held[at[Role(stage, replica, role.tensor)]][name] if stage == role.stage else pieces
                for stage, replica in sorted(holders[name])
            ]
            for name, pieces in held[rank].items()
            if len(holders[name]) > 1
        }
        found.append(_sums(strategy.stages[role.stage], len(rounds), shared, frozen))
    return found


def inside_replica(workload: WorkloadProfile, strategy: Strategy, role: Role, rounds: Sequence[Round]) -> int:
    """Elements that one rank puts into tensor-parallel sums. With sequence parallelism a sum is a gather and a scatter.

    A table that several stages use is not divided, so its first block sums nothing.
    """
    stage = strategy.stages[role.stage]
    if stage.tensor_parallel == 1:
        return 0
    is_kept = bool(workload.tied_parameters) and len(strategy.stages) > 1
    blocks = _blocks(workload)
    numbers = [number for span in spans_of(strategy, role.stage) for number in range(span.first, span.end)]
    samples = sum(one.spans[role.stage][role.replica].size for one in rounds)
    found = 0
    for block in (blocks[number] for number in numbers if number or not is_kept):
        passes = 3 if stage.recompute == "full" and block.recomputable else 2
        found += passes * block.tensor_collectives * samples * block.made_elements
    return found * (2 if stage.sequence_parallel else 1)


def beside(workload: WorkloadProfile, strategy: Strategy, role: Role, rounds: Sequence[Round]) -> int:
    """Elements that sequence parallelism sums inside a replica besides: gradients of what every rank has whole.

    Each of its ranks saw a part of the tokens, so these gradients are summed in every round.
    """
    stage = strategy.stages[role.stage]
    if not stage.sequence_parallel:
        return 0
    blocks = workload.part(stage.first_block, stage.end_block)
    return len(rounds) * sum(count * (block.num_parameters - block.split_parameters) for block, count in blocks)


def _sums(
    stage: StageStrategy, num_rounds: int, shared: Mapping[str, Sequence[Shapes]], frozen: frozenset[str]
) -> Sums:
    summed, gathered, scattered = 0, 0, 0
    for name, of_replicas in shared.items():
        # shards have one size: the last ones are filled up
        size = max(_elements(pieces) for pieces in of_replicas)
        if all(pieces == of_replicas[0] for pieces in of_replicas):
            summed += 0 if name in frozen else size
        else:
            gathered += len(of_replicas) * size
            scattered += 0 if name in frozen else len(of_replicas) * size
    gathers = 2 * num_rounds if stage.zero == 3 else 1
    scatters = num_rounds if stage.zero >= 2 else 1
    return Sums(summed, gathers * gathered, scatters * scattered)


def _elements(pieces: Shapes) -> int:
    return sum(prod(shape) for _, shape in pieces)


def _overlaps(one: Round, stage: int, following: int) -> list[tuple[Replica, Replica, int]]:
    return [
        ((stage, left), (following, right), samples)
        for left, own in enumerate(one.spans[stage])
        for right, other in enumerate(one.spans[following])
        if (samples := own.overlap(other).size)
    ]


def _blocks(workload: WorkloadProfile) -> list[Block]:
    """With their repetitions."""
    return [block for block in workload.blocks for _ in range(block.count)]
