"""What the ranks communicated in a step, against what their plan says.

Of what goes between stages and inside replicas less than the plan says is no failure: a plan counts what it cannot rule
out, such as a picture that the model reduces before the next block. Whether enough was sent shows in the losses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.train.apply.roles import Role, Round
from heliostat.train.verify.expected import (
    Amount,
    Replica,
    Shapes,
    beside,
    between_replicas,
    inside_replica,
    over_replicas,
)
from heliostat.train.verify.traffic import Kind, Message
from heliostat.train.verify.verification import Check, Term

SMALL = 0.1
"""What may be summed inside a replica beside what the plan says, relative to it: a divided loss sums a few numbers for
every token (Shoeybi et al. 2019), a block as many as the model is wide."""


@dataclass(frozen=True, kw_only=True)
class RankFacts:
    """What one rank tells the others of itself."""

    messages: Sequence[Message]
    """Of one step."""
    held: Mapping[str, Shapes]
    """Its parameters."""
    frozen: frozenset[str]
    """Those of them that are not trained."""


def check_signature(
    workload: WorkloadProfile,
    strategy: Strategy,
    roles: Sequence[Role],
    rounds: Sequence[Round],
    num_tensors: Mapping[int, int],
    facts: Sequence[RankFacts],
) -> Check:
    """Compare messages, elements and collectives of every rank.

    Args:
        workload: the model as the planner sees it.
        strategy: the plan.
        roles: by rank.
        rounds: of the step.
        num_tensors: for every block with which a part of the chain begins, how many tensors it is given.
        facts: by rank.
    """
    terms = [
        *_between(between_replicas(workload, strategy, rounds, num_tensors), roles, facts),
        *_over(strategy, roles, rounds, facts),
        *_inside(workload, strategy, roles, rounds, facts),
    ]
    return Check(
        name="communication",
        compared=f"messages and collectives of one step of {len(rounds)} micro-batches, on every rank, with the plan",
        terms=tuple(terms),
        causes=(
            "the model does something between its blocks that depends on how it is divided",
            "the plan was made for another model",
        ),
        next_step="plan again: heliostat plan CONFIG; or pin `plan.tensor_parallel: 1` or `plan.num_stages: 1`",
    )


def _between(
    expected: Mapping[tuple[Replica, Replica], Amount], roles: Sequence[Role], facts: Sequence[RankFacts]
) -> list[Term]:
    got: dict[tuple[Replica, Replica], Amount] = {}
    for role, one in zip(roles, facts, strict=True):
        for message in one.messages:
            if message.kind == "send" and message.peer is not None:
                pair = (role[:2], roles[message.peer][:2])
                got[pair] = got.get(pair, Amount()).plus(1, message.num_elements)
    terms = []
    for pair in sorted({*expected, *got}):
        wanted, seen = expected.get(pair, Amount()), got.get(pair, Amount())
        what = " to ".join(f"stage {stage} replica {replica}" for stage, replica in pair)
        terms.append(Term(what=what, expected=wanted.messages, got=seen.messages, unit="messages"))
        terms.append(Term(what=what, expected=wanted.elements, got=seen.elements, unit="elements", at_most=True))
    return terms


def _over(strategy: Strategy, roles: Sequence[Role], rounds: Sequence[Round], facts: Sequence[RankFacts]) -> list[Term]:
    terms = []
    frozen = frozenset().union(*(one.frozen for one in facts))
    for rank, wanted in enumerate(over_replicas(strategy, roles, rounds, [one.held for one in facts], frozen)):
        named: tuple[tuple[Kind, str, int], ...] = (
            ("sum", "gradients summed", wanted.summed),
            ("gather", "parameters gathered", wanted.gathered),
            ("scatter", "gradients scattered", wanted.scattered),
        )
        for kind, what, size in named:
            got = sum(message.num_elements for message in facts[rank].messages if message.kind == kind)
            if size or got:
                terms.append(Term(what=f"{what} by rank {rank}", expected=size, got=got, unit="elements"))
    return terms


def _inside(
    workload: WorkloadProfile,
    strategy: Strategy,
    roles: Sequence[Role],
    rounds: Sequence[Round],
    facts: Sequence[RankFacts],
) -> list[Term]:
    """Not of a pipeline's stages with sequence parallelism, whose ends also gather what crosses a cut."""
    terms = []
    for rank, role in enumerate(roles):
        stage = strategy.stages[role.stage]
        got = sum(message.num_elements for message in facts[rank].messages if message.kind == "tensor")
        if (stage.tensor_parallel == 1 and not got) or (stage.sequence_parallel and len(strategy.stages) > 1):
            continue
        total = inside_replica(workload, strategy, role, rounds)
        besides = beside(workload, strategy, role, rounds)
        terms.append(
            Term(
                what=f"tensor-parallel collectives of rank {rank}",
                expected=total,
                got=got,
                unit="elements",
                tolerance=SMALL + (besides / total if total else 0.0),
                at_most=True,
            )
        )
    return terms
