"""Some steps of a plan on its ranks, against the plainest training loop on one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heliostat.placement.strategy import Strategy
from heliostat.train import group
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.apply.look import look_at
from heliostat.train.apply.precision import DTYPES
from heliostat.train.apply.roles import Role, Round
from heliostat.train.apply.stage import spans_of
from heliostat.train.task import Task, Tensors
from heliostat.train.verify.one_process import Outcome, one_process
from heliostat.train.verify.shrink import num_samples
from heliostat.train.verify.signature import RankFacts
from heliostat.train.verify.traffic import Traffic
from heliostat.train.verify.verification import Check, Term

NUM_STEPS = 3
"""The first tells of the passes, the second of gradients and update, the third of AdamW's state."""
LEARNING_RATE = 1e-3
"""Large enough that a wrong update shows, small enough that rounding does not grow."""
TOLERANCES = {"fp32": (1e-4, 1e-3), "bf16": (1e-2, 1e-1)}
"""By precision, relative: of losses and of gradient norms. Plans that are right differ from one process by about 1e-6
in 32 bits, and by 4e-4 in a bf16 loss."""

NOT_COMPARED = Check(
    name="equality",
    compared="nothing: no process has room for the whole model with its gradients and AdamW's moments",
    terms=(),
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the plan's own ranks gave."""

    outcomes: list[Outcome]
    """By step, the same on all ranks."""
    roles: tuple[Role, ...]
    """By rank."""
    facts: RankFacts
    """Of this rank, in the last step."""


def reference(
    task: Task,
    tensors: Tensors,
    rounds: Sequence[Round],
    settings: EngineSettings,
    seed: int,
    device: torch.device,
) -> list[Outcome]:
    """What one process gives; rank 0 finds out, and all ranks get it.

    Args:
        task: with nothing random in it.
        tensors: all rows.
        rounds: of every step; each is one pass.
        settings: of the run.
        seed: of the model's initial values.
        device: where it trains.
    """
    found: list[Outcome] = []
    if group.rank() == 0:
        steps = []
        for number in range(NUM_STEPS):
            rows = _rows(tensors, rounds, number)
            steps.append([rows[one.spans[0][0].begin : one.spans[0][-1].end] for one in rounds])
        torch.manual_seed(seed)
        found = one_process(
            task,
            tensors,
            steps,
            learning_rate=LEARNING_RATE,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            dtype=DTYPES[settings.precision],
            device=device,
        )
    return group.from_first(found)


def trial(
    task: Task,
    strategy: Strategy,
    order: Sequence[int] | None,
    tensors: Tensors,
    rounds: Sequence[Round],
    settings: EngineSettings,
    seed: int,
    device: torch.device,
) -> Trial:
    """The same steps under the plan, by an engine that is thrown away."""
    torch.manual_seed(seed)
    engine = Engine(task, strategy, order=order, example=tensors, settings=settings, device=device)
    outcomes = []
    for number in range(NUM_STEPS):
        with Traffic() as traffic:
            result = engine.step(
                tensors,
                _rows(tensors, rounds, number),
                number=number + 1,
                learning_rate=LEARNING_RATE,
                rounds=rounds,
            )
        outcomes.append(Outcome(result.loss, result.gradient_norm))
    held = engine.model_held()
    trained = {name: parameter.requires_grad for name, parameter in engine.model.named_parameters() if name in held}
    facts = RankFacts(
        messages=traffic.messages,
        held={
            name: tuple((piece.offset, tuple(piece.values.shape)) for piece in held[name].pieces) for name in trained
        },
        frozen=frozenset(name for name, is_trained in trained.items() if not is_trained),
    )
    roles = engine.team.roles
    engine.close()
    return Trial(outcomes=outcomes, roles=roles, facts=facts)


def check_equality(
    expected: Sequence[Outcome], got: Sequence[Outcome], settings: EngineSettings, rounds: Sequence[Round]
) -> Check:
    """Compare losses and gradient norms of every step.

    Args:
        expected: of one process.
        got: of the plan.
        settings: of the run.
        rounds: of a step.
    """
    loss_tolerance, norm_tolerance = TOLERANCES[settings.precision]
    terms = []
    for number, (alone, together) in enumerate(zip(expected, got, strict=True), start=1):
        pairs = (
            ("loss", alone.loss, together.loss, loss_tolerance),
            ("gradient norm", alone.gradient_norm, together.gradient_norm, norm_tolerance),
        )
        terms += [
            Term(what=f"{what} of step {number}", expected=one, got=other, tolerance=tolerance)
            for what, one, other, tolerance in pairs
        ]
    return Check(
        name="equality",
        compared=f"{NUM_STEPS} AdamW steps of {num_samples(rounds)} samples in {len(rounds)} micro-batches "
        "of the whole model, in evaluation mode, under the plan, with a plain loop on one process",
        terms=tuple(terms),
        causes=(
            "the model's forward or its loss looks at the size of the batch, or at other rows of it",
            "the model keeps state between calls",
            "the executor divides this model wrongly",
        ),
        next_step="pin `plan.tensor_parallel: 1` or `plan.num_stages: 1` to see which split is at fault; "
        "without `train.verify` the run trains, but not what one process would",
    )


def tensors_at_cuts(task: Task, tensors: Tensors, strategy: Strategy, seed: int) -> dict[int, int]:
    """For every block with which a part of the chain begins, how many tensors it is given."""
    firsts = {span.first for stage in range(len(strategy.stages)) for span in spans_of(strategy, stage)} - {0}
    if not firsts:
        return {}
    torch.manual_seed(seed)
    _, chain = look_at(task, task.model(), tensors, strategy)
    assert chain is not None
    return {first: len(chain.crossing(first)) for first in firsts}


def _rows(tensors: Tensors, rounds: Sequence[Round], number: int) -> Tensor:
    """Of step `number`: the next ones, from the first again at the end."""
    many, size = len(next(iter(tensors.values()))), num_samples(rounds)
    return torch.arange(number * size, (number + 1) * size) % many
