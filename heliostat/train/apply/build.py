"""From a single-device model and a plan to one rank's part of it: the order of everything that is done to the model.

1. The model is built as the user wrote it, with its initial values, equal on all ranks.
2. A twin without values is run to find its blocks, and what crosses the cuts of the plan.
3. Tensor parallelism divides parameters, while their shapes are still those of the user's program.
4. Blocks are compiled, then recomputed: a recomputed pass runs the compiled code again.
5. Blocks of other stages are switched off and their values dropped. It comes after 4, so that a pass that is switched
   off runs nothing, and before 6, so that only what is here is sharded.
6. ZeRO divides what is left over the replicas. It replaces parameters by its own, and its collectives must enclose
   everything that reads them.
7. The cuts are put in force, so that nothing happens in a block at which a pass ends, and that ZeRO sees what came over
   the cut.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from heliostat.errors import PlanError
from heliostat.placement.strategy import Strategy
from heliostat.train import group
from heliostat.train.apply.holding import Holding, groups_of, holdings, stages_of
from heliostat.train.apply.look import look_at
from heliostat.train.apply.precision import DTYPES
from heliostat.train.apply.recompute import recomputed
from heliostat.train.apply.stage import Stage, Whole, spans_of
from heliostat.train.apply.team import Team
from heliostat.train.apply.tensor import Rules, divide
from heliostat.train.apply.tensor_group import TensorGroup
from heliostat.train.apply.zero import Shards
from heliostat.train.execution import Precision
from heliostat.train.pieces import Division
from heliostat.train.profiling.parts import parts_of
from heliostat.train.profiling.structure import BlockParts, canonical_names
from heliostat.train.task import Task, Tensors


@dataclass(frozen=True, kw_only=True)
class Part:
    """One rank's part of a model, ready to run."""

    model: nn.Module
    modules: Mapping[int, tuple[str, ...]]
    """Paths of the modules of every block that is here, by its number."""
    elsewhere: frozenset[str]
    """Paths of those of all other blocks."""
    stage: Stage | Whole
    num_chunks: int
    """Parts of the chain that are here."""
    shards: Shards
    holdings: Mapping[str, Holding]
    """Of the parameters that are here, by their first name."""
    divisions: Mapping[str, Division]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the whole parameters."""


def build(
    task: Task, team: Team, example: Tensors, *, precision: Precision, compiles: bool, device: torch.device
) -> Part:
    """This rank's part of the task's model.

    Args:
        task: whose model it is; it is drawn from torch's generator.
        team: the plan and its ranks; all of them call this together.
        example: a few rows.
        precision: in which blocks compute.
        compiles: whether blocks are compiled.
        device: of this rank.

    Raises:
        PlanError: the model cannot be divided as the plan says.
    """
    model = task.model()
    group.copy_from_first(model)
    strategy = team.strategy
    names = list(dict.fromkeys(canonical_names(model).values()))
    shapes = {name: tuple(model.get_parameter(name).shape) for name in names}
    blocks, chain = look_at(task, model, example, strategy) if compiles or _needs_blocks(strategy) else ((), None)
    stages = stages_of(blocks, strategy, names)
    team.open(groups_of(team, stages))
    spans = spans_of(strategy, team.role.stage)
    here = [number for span in spans for number in range(span.first, span.end)] if chain else range(len(blocks))
    own = [blocks[number] for number in here]
    if compiles and team.stage.tensor_parallel > 1:
        raise PlanError(
            "compiled blocks cannot be divided by tensor parallelism",
            got="train.compile with a tensor-parallel stage",
            next_step="set train.compile to false, or pin `tensor_parallel: 1`",
        )
    divisions = _divided(model, own, team, stages, task.tensor_rules())
    held = holdings(team, stages, divisions)
    for block in own:
        _wrap(model, block, team, compiles=compiles)
    stage = Stage(model, chain, spans, device) if chain else Whole(model)
    _drop(model, held)
    model.to(device)
    shards = _sharded(model, own, team, held, device, DTYPES[precision])
    stage.close()
    return Part(
        model=model,
        modules={number: blocks[number].modules for number in here} or _parts(model),
        elsewhere=frozenset(name for at, block in enumerate(blocks) if at not in here for name in block.modules),
        stage=stage,
        num_chunks=len(spans),
        shards=shards,
        holdings=held,
        divisions=divisions,
        shapes={name: shapes[name] for name in held},
    )


def _needs_blocks(strategy: Strategy) -> bool:
    """Whether the plan does anything to a part of the model."""
    return len(strategy.stages) > 1 or any(
        stage.ranks_per_replica > 1 or stage.zero or stage.recompute != "none" for stage in strategy.stages
    )


def _divided(
    model: nn.Module, blocks: Sequence[BlockParts], team: Team, stages: Mapping[str, frozenset[int]], rules: Rules
) -> dict[str, Division]:
    """Divide the parameters of `blocks` over the ranks of this replica, but for those that other stages use too."""
    group = team.group(team.mates(team.role))
    if group is None:
        return {}
    own = TensorGroup(
        group, team.role.tensor, team.stage.tensor_parallel, sequence_parallel=team.stage.sequence_parallel
    )
    return divide(model, blocks, own, rules=rules, keep=[name for name, using in stages.items() if len(using) > 1])


def _parts(model: nn.Module) -> dict[int, tuple[str, ...]]:
    """The blocks of a model that no plan looked at: its parts, in the order of its children."""
    known = {name for name, _ in model.named_modules()}
    return {number: (part.name,) for number, part in enumerate(parts_of(model)) if part.name in known}


def _wrap(model: nn.Module, block: BlockParts, team: Team, *, compiles: bool) -> None:
    if not block.recomputable:
        return
    for name in block.modules:
        module = model.get_submodule(name)
        if compiles:
            module.forward = torch.compile(module.forward)
        if team.stage.recompute != "none":
            in_two = team.strategy.schedule == "zero-bubble"
            module.forward = recomputed(module.forward, team.stage.recompute, in_two=in_two, buffers=module.buffers)


def _drop(model: nn.Module, held: Mapping[str, Holding]) -> None:
    """Replace the parameters that are not here by zeros of the same shape without storage."""
    zeros: dict[str, nn.Parameter] = {}
    for name, first in canonical_names(model).items():
        if first not in held:
            parent, _, own = name.rpartition(".")
            if first not in zeros:
                old = model.get_parameter(name)
                empty = torch.zeros((), dtype=old.dtype).expand(old.shape)
                zeros[first] = nn.Parameter(empty, requires_grad=False)
            setattr(model.get_submodule(parent), own, zeros[first])


def _sharded(
    model: nn.Module,
    blocks: Sequence[BlockParts],
    team: Team,
    held: Mapping[str, Holding],
    device: torch.device,
    dtype: torch.dtype,
) -> Shards:
    shards = Shards(team.stage.zero, separate=team.strategy.schedule in ("interleaved", "zero-bubble"))
    replicas = team.group(team.replicas(team.role.stage, team.role.tensor))
    if team.stage.zero and replicas is not None:
        users = Counter(name for block in blocks for name in block.parameters)
        keep = [model.get_parameter(name) for name, one in held.items() if not one.is_shardable or users[name] != 1]
        for block in blocks:
            modules = [model.get_submodule(name) for name in block.modules]
            shards.add(modules, replicas, device, keep, dtype)
    return shards
