"""A model as a chain of blocks in the order in which they run, and what crosses the cuts between them.

The chain is found by running the task's loss, so the model's own forward may do what it likes between its blocks. What
crosses a cut are the tensors among the next block's arguments that need a gradient: hidden states, an encoder's output,
a position bias. Whatever else a block is given, such as masks, every stage makes for itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
        PlanError: a module of the chain runs more than once.
    """
    small, large = (_watched(model, blocks, partial(run, model, size)) for size in SIZES)
    made = {name: _made(small.outputs[name], large.outputs[name]) for name in small.outputs}
    taken = {name: _taken(small.inputs[name], large.inputs[name]) for name in small.inputs}
    wanted = range(1, len(blocks)) if cuts is None else sorted(set(cuts) - {0})
    refused = {at: why for at in wanted if (why := _obstacle(model, blocks, taken, at, run)) is not None}
    return Chain(blocks=tuple(blocks), made=made, taken=taken, refused=refused)


@dataclass
class _Watch:
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


def _watched(model: nn.Module, blocks: Sequence[BlockParts], run: Callable[[], Tensor]) -> _Watch:
    watch = _Watch()

    def enter(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        if name in watch.inputs:
            raise PlanError(f"module {name} runs more than once in a step", next_step="pin `num_stages: 1`")
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


def _obstacle(
    model: nn.Module, blocks: Sequence[BlockParts], taken: Mapping[str, Sequence[Leaf]], cut: int, run: RunLoss
) -> str | None:
    """What the loss uses of the blocks before `cut` beside what crosses it; None if nothing.

    The tensors that cross are cut off from what made them; then no output of those blocks may be reached from the loss.
    """
    if not blocks[cut].modules:
        return "it is not a module"
    entry = blocks[cut].modules[0]
    if not taken[entry]:
        return f"{entry} is given no tensor with a batch and a gradient"
    before = [name for block in blocks[:cut] for name in block.modules]
    with ExitStack() as hooks:
        for name in before:
            hooks.callback(model.get_submodule(name).register_forward_hook(partial(_marked, name)).remove)
        target = model.get_submodule(entry)
        hooks.callback(target.register_forward_pre_hook(_detached, with_kwargs=True).remove)
        loss = run(model, SIZES[0])
    reached = [name for name in before if name in _reached(loss)]
    return f"later blocks use what {reached[-1]} makes, past what {entry} is given" if reached else None


class _Mark(torch.autograd.Function):
    """Leaves the name of a module in the autograd graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, name: str) -> Tensor:
        ctx.module = name
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        del ctx
        return (*gradients, None)


def _marked(name: str, _: nn.Module, __: Any, output: Any) -> Any:
    def mark(one: Tensor) -> Tensor:
        marked: Tensor = _Mark.apply(one, name) if one.requires_grad else one  # type: ignore[no-untyped-call]
        return marked

    return pytree.tree_map_only(Tensor, mark, output)


def _detached(_: nn.Module, args: Any, kwargs: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda one: one.detach().requires_grad_(one.requires_grad), (args, kwargs))


def _reached(loss: Tensor) -> set[str]:
    """The modules that left their name in the autograd graph behind `loss`."""
    found: set[str] = set()
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "module"):
            found.add(node.module)
        stack += [following for following, _ in node.next_functions]
    return found
