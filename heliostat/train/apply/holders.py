"""Which ranks hold which parameters: those of a block its stage's replicas, those of no block everybody.

A parameter that two blocks share is held by the stages of both. Its gradient, like every other, is the sum over all
ranks that hold it.
"""

from collections.abc import Sequence

from torch import nn

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.chain import Chain, blocks_of
from heliostat.train.apply.roles import Role
from heliostat.train.apply.stage import Span


def spans_of(strategy: Strategy, stage: int) -> list[Span]:
    """The blocks of every chunk of `stage`, as places in the chain.

    With several chunks a stage's blocks are divided evenly over them, the first ones having one more; the chain goes
    through the first chunk of every stage, then the second, ...
    """
    sizes = [_sizes(one.end_block - one.first_block, strategy.chunks) for one in strategy.stages]
    found, at = [], 0
    for chunk in range(strategy.chunks):
        for number, own in enumerate(sizes):
            if number == stage:
                found.append(Span(at, at + own[chunk]))
            at += own[chunk]
    return found


def canonical_names(model: nn.Module) -> dict[str, str]:
    """For every name of a parameter the first name that it has."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def held_by(model: nn.Module, chain: Chain, strategy: Strategy, everyone: Sequence[Role]) -> dict[str, tuple[int, ...]]:
    """For every parameter, by its first name, the ranks that hold it.

    Ranks of one tensor-parallel group each hold their own part; only those with the same part are named together, by
    the place in the group: see `mates`.
    """
    names, blocks = canonical_names(model), blocks_of(model)
    of_block = [
        {names[f"{link.name}.{name}"] for name, _ in blocks[link.name].named_parameters(remove_duplicate=False)}
        for link in chain.links
    ]
    in_blocks = set().union(*of_block)
    found: dict[str, list[int]] = {name: [] for name in dict.fromkeys(names.values())}
    for role in everyone:
        own = {name for span in spans_of(strategy, role.stage) for at in range(*span) for name in of_block[at]}
        for name, ranks in found.items():
            if name in own or name not in in_blocks:
                ranks.append(role.rank)
    return {name: tuple(ranks) for name, ranks in found.items()}


def _sizes(total: int, parts: int) -> list[int]:
    each, more = divmod(total, parts)
    return [each + (number < more) for number in range(parts)]
