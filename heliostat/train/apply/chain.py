"""A model as a chain of blocks in the order in which they run, and what crosses the cuts between them.

The chain is found by running the task's loss, so the model's own forward may do what it likes between its blocks. What
crosses a cut are the tensors among the next block's arguments that need a gradient: hidden states, an encoder's output,
a position bias. Whatever else a block is given, such as masks, every stage makes for itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.errors import PlanError
from heliostat.train.profiling.structure import BlockParts

SIZES = (2, 3)
"""Samples of the two runs that tell which dimensions grow with the batch."""
RunLoss = Callable[[nn.Module, int], Tensor]
"""The loss of a model on so many samples, where the model is."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A tensor whose first dimension is the batch."""

    place: int
    """Among the leaves of the structure it belongs to."""
    shape: tuple[int, ...]
    """Without the batch."""
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a module puts out: a structure whose tensors are known by shape."""

    leaves: tuple[Any, ...]
    """A `Leaf` for every tensor with a batch; other values as they are."""
    spec: Any


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The modules of all blocks, and what crosses the cuts."""

    blocks: tuple[BlockParts, ...]
    made: Mapping[str, Made]
    """By path of a block's module."""
    taken: Mapping[str, tuple[Leaf, ...]]
    """By path: of a module's arguments those that cross a cut before it."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Block -> why no stage can begin there."""

    def entry(self, block: int) -> str:
        """The module with which a block begins."""
        return self.blocks[block].modules[0]

    def crossing(self, block: int) -> tuple[Leaf, ...]:
        """What crosses the cut before `block`; nothing before the first and after the last."""
        return self.taken[self.entry(block)] if 0 < block < len(self.blocks) else ()

    def check_cut(self, block: int) -> None:
        """Refuse a cut that would change what the model computes.

        Raises:
            PlanError: names what is in the way.
        """
        if block in self.refused:
            raise PlanError(
                f"no stage can begin with block {block}, {self.blocks[block].name}",
                got=self.refused[block],
                next_step="cut elsewhere, or pin `num_stages: 1`",
            )


def chain_of(model: nn.Module, blocks: Sequence[BlockParts], run: RunLoss, cuts: Iterable[int] | None = None) -> Chain:
    """The chain of `model`, which may be on the meta device.

    Args:
        model: as it was built.
        blocks: its structure.
        run: its loss.
        cuts: blocks at which stages are to begin; all are looked at if None.

    Raises:
        PlanError: a module with parameters runs more than once.
    """
    small, large = (_watched(model, blocks, partial(run, model, size)) for size in SIZES)
    blocks = [_switchable(model, block, small) for block in blocks]
    made = {name: _made(small.outputs[name], large.outputs[name]) for name in small.outputs}
    taken = {name: _taken(small.inputs[name], large.inputs[name]) for name in small.inputs}
    wanted = range(1, len(blocks)) if cuts is None else sorted(set(cuts) - {0})
    loss = _marked(model, blocks, taken, partial(run, model, SIZES[0]))
    refused = {at: why for at in wanted if (why := _obstacle(loss, blocks, taken, at)) is not None}
    return Chain(blocks=tuple(blocks), made=made, taken=taken, refused=refused)


@dataclass
class _Watch:
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    """Modules that ran more than once."""


def _watched(model: nn.Module, blocks: Sequence[BlockParts], run: Callable[[], Tensor]) -> _Watch:
    watch = _Watch()

    def enter(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        if name in watch.inputs:
            watch.repeated.add(name)
        watch.inputs[name] = (args, kwargs)

    def leave(name: str, _: nn.Module, __: Any, output: Any) -> None:
        watch.outputs[name] = output

    with ExitStack() as hooks:
        for name in (name for block in blocks for name in block.modules):
            module = model.get_submodule(name)
            hooks.callback(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        run()
    return watch


def _switchable(model: nn.Module, block: BlockParts, watch: _Watch) -> BlockParts:
    """The block without the modules that every stage runs.

    They have no parameters, and run more than once or make nothing that has a gradient, as rotary tables.
    """
    everywhere = set()
    for name in block.modules:
        has_parameters = next(model.get_submodule(name).parameters(), None) is not None
        if name in watch.repeated and has_parameters:
            raise PlanError(f"module {name} runs more than once in a step", next_step="pin `num_stages: 1`")
        outputs = [one for one in pytree.tree_leaves(watch.outputs.get(name)) if isinstance(one, Tensor)]
        if name in watch.repeated or not (has_parameters or any(one.requires_grad for one in outputs)):
            everywhere.add(name)
    return replace(block, modules=tuple(name for name in block.modules if name not in everywhere))


def _made(small: Any, large: Any) -> Made:
    leaves, spec = pytree.tree_flatten(small)
    pairs = zip(leaves, pytree.tree_leaves(large), strict=True)
    return Made(
        leaves=tuple(_leaf(at, a, b) if isinstance(a, Tensor) else a for at, (a, b) in enumerate(pairs)), spec=spec
    )


def _taken(small: Any, large: Any) -> tuple[Leaf, ...]:
    pairs = zip(pytree.tree_leaves(small), pytree.tree_leaves(large), strict=True)
    return tuple(
        leaf
        for at, (a, b) in enumerate(pairs)
        if isinstance(a, Tensor) and a.requires_grad and isinstance(leaf := _leaf(at, a, b), Leaf)
    )


def _leaf(place: int, small: Tensor, large: Tensor) -> Any:
    """The tensor as a leaf, if its first dimension is the batch; else the tensor, whose values nobody uses."""
    if small.dim() and small.shape[0] == SIZES[0] and large.shape[0] == SIZES[1] and small.shape[1:] == large.shape[1:]:
        return Leaf(place=place, shape=tuple(small.shape[1:]), dtype=small.dtype)
    return small.detach()


def _marked(
    model: nn.Module, blocks: Sequence[BlockParts], taken: Mapping[str, Sequence[Leaf]], run: Callable[[], Tensor]
) -> Tensor:
    """The loss of a run that leaves marks in its graph: what a module has made, and what crosses the cut before it."""
    with ExitStack() as hooks:
        for name in (name for block in blocks for name in block.modules):
            module = model.get_submodule(name)
            places = frozenset(leaf.place for leaf in taken[name])
            hooks.callback(module.register_forward_hook(partial(_mark_made, name)).remove)
            hooks.callback(
                module.register_forward_pre_hook(partial(_mark_taken, name, places), with_kwargs=True).remove
            )
        return run()


def _obstacle(loss: Tensor, blocks: Sequence[BlockParts], taken: Mapping[str, Sequence[Leaf]], cut: int) -> str | None:
    """What the loss uses of the blocks before `cut` beside what crosses it; None if nothing."""
    if not blocks[cut].modules:
        return "it is not a module"
    entry = blocks[cut].modules[0]
    if not taken[entry]:
        return f"{entry} is given no tensor with a batch and a gradient"
    made = _reached(loss, but_through=("taken", entry))
    reached = [name for block in blocks[:cut] for name in block.modules if name in made]
    return f"later blocks use what {reached[-1]} makes, past what {entry} is given" if reached else None


class _Mark(torch.autograd.Function):
    """Leaves a mark in the autograd graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, mark: tuple[str, str]) -> Tensor:
        ctx.mark = mark
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        del ctx
        return (*gradients, None)


def _mark(tensor: Any, kind: str, name: str) -> Any:
    """The tensor with a mark; what has no gradient, because parameters are frozen, leaves one all the same."""
    if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
        return tensor
    return _Mark.apply(tensor if tensor.requires_grad else tensor.detach().requires_grad_(), (kind, name))  # type: ignore[no-untyped-call]


def _mark_made(name: str, _: nn.Module, __: Any, output: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda one: _mark(one, "made", name), output)


def _mark_taken(name: str, places: frozenset[int], _: nn.Module, args: Any, kwargs: Any) -> Any:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    marked = [_mark(one, "taken", name) if place in places else one for place, one in enumerate(leaves)]
    return pytree.tree_unflatten(marked, spec)


def _reached(loss: Tensor, *, but_through: tuple[str, str]) -> set[str]:
    """The modules whose output `loss` is made of, by other ways than through one mark."""
    found: set[str] = set()
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        mark = getattr(node, "mark", None)
        if mark == but_through:
            continue
        if mark is not None and mark[0] == "made":
            found.add(mark[1])
        stack += [following for following, _ in node.next_functions]
    return found
