"""A model as a chain of blocks in the order in which they run, and what crosses the cuts between them.

The chain is found by running the task's loss on the meta device, so the model's own forward may do what it likes
between its blocks. What crosses a cut are the tensors among a block's arguments that need a gradient: hidden states, an
encoder's output, a position bias. Whatever else a block is given, such as masks, every stage makes for itself.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.errors import PlanError

SIZES = (2, 3)
"""Samples of the two runs that tell which dimensions grow with the batch."""
RunLoss = Callable[[nn.Module, int], Tensor]
"""The loss of a model on so many samples, on the meta device."""


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
    """What a block puts out: a structure whose tensors are known by shape."""

    leaves: tuple[Any, ...]
    """A `Leaf` for every tensor with a batch; other values as they are."""
    spec: Any


@dataclass(frozen=True, kw_only=True)
class Link:
    """One block of the chain."""

    name: str
    made: Made
    taken: tuple[Leaf, ...]
    """Of its arguments those that cross a cut before it."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """All blocks, and which cuts are possible."""

    links: tuple[Link, ...]
    refused: Mapping[int, str] = field(default_factory=dict)
    """Block -> why there can be no cut before it."""

    def check_cut(self, block: int) -> None:
        """Refuse a cut that would change what the model computes.

        Raises:
            PlanError: names what is in the way.
        """
        if block in self.refused:
            raise PlanError(
                f"the model cannot be cut before block {block}, {self.links[block].name}",
                got=self.refused[block],
                next_step="cut elsewhere, or pin `num_stages: 1`",
            )


def blocks_of(model: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """The blocks by name: elements of containers, and children that hold no container, where they have parameters."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        full = f"{prefix}{name}"
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found |= {f"{full}.{at}": one for at, one in child.named_children() if _has_parameters(one)}
        elif _has_container(child):
            found |= blocks_of(child, f"{full}.")
        elif _has_parameters(child):
            found[full] = child
    return found


def chain_of(model: nn.Module, run: RunLoss) -> Chain:
    """The chain of `model`, which is on the meta device.

    Raises:
        PlanError: a block runs more than once.
    """
    small, large = (_watched(model, partial(run, model, size)) for size in SIZES)
    names = list(small.outputs)
    links = tuple(
        Link(
            name=name,
            made=_made(small.outputs[name], large.outputs[name]),
            taken=_taken(small.inputs[name], large.inputs[name]),
        )
        for name in names
    )
    refused = {at: reason for at in range(1, len(links)) if (reason := _obstacle(model, links, at, run)) is not None}
    return Chain(links=links, refused=refused)


@dataclass
class _Watch:
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


def _watched(model: nn.Module, run: Callable[[], Tensor]) -> _Watch:
    watch = _Watch()
    blocks = blocks_of(model)

    def enter(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        if name in watch.inputs:
            raise PlanError(f"block {name} runs more than once", next_step="pin `num_stages: 1`")
        watch.inputs[name] = (args, kwargs)

    def leave(name: str, _: nn.Module, __: Any, output: Any) -> None:
        watch.outputs[name] = output

    with ExitStack() as hooks:
        for name, block in blocks.items():
            hooks.callback(block.register_forward_pre_hook(partial(enter, name), with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(partial(leave, name)).remove)
        run()
    return watch


def _made(small: Any, large: Any) -> Made:
    leaves, spec = pytree.tree_flatten(small)
    others = pytree.tree_leaves(large)
    return Made(
        leaves=tuple(_leaf(at, a, b) if isinstance(a, Tensor) else a for at, (a, b) in enumerate(zip(leaves, others, strict=True))),
        spec=spec,
    )


def _taken(small: Any, large: Any) -> tuple[Leaf, ...]:
    pairs = zip(pytree.tree_leaves(small), pytree.tree_leaves(large), strict=True)
    return tuple(
        leaf
        for at, (a, b) in enumerate(pairs)
        if isinstance(a, Tensor) and a.requires_grad and isinstance(leaf := _leaf(at, a, b), Leaf)
    )


def _leaf(place: int, small: Tensor, large: Tensor) -> Any:
    """The tensor as a leaf, if its first dimension is the batch; else an equal tensor of zeros."""
    if small.dim() and small.shape[0] == SIZES[0] and large.shape[0] == SIZES[1] and small.shape[1:] == large.shape[1:]:
        return Leaf(place=place, shape=tuple(small.shape[1:]), dtype=small.dtype)
    return small


def _obstacle(model: nn.Module, links: Sequence[Link], cut: int, run: RunLoss) -> str | None:
    """What the loss uses of the blocks before `cut` beside what crosses it; None if nothing.

    The tensors that cross are cut off from what made them; then no output of those blocks may be reached from the loss.
    """
    blocks = blocks_of(model)
    with ExitStack() as hooks:
        for link in links[:cut]:
            hooks.callback(blocks[link.name].register_forward_hook(partial(_marked, link.name)).remove)
        target = blocks[links[cut].name]
        hooks.callback(target.register_forward_pre_hook(_detached, with_kwargs=True).remove)
        loss = run(model, SIZES[0])
    reached = [link.name for link in links[:cut] if link.name in _reached(loss)]
    return f"later blocks use what {reached[-1]} makes, past that block's input" if reached else None


class _Mark(torch.autograd.Function):
    """Leaves the name of a block in the autograd graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, name: str) -> Tensor:
        ctx.block = name
        return tensor.view_as(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _marked(name: str, _: nn.Module, __: Any, output: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda one: _Mark.apply(one, name) if one.requires_grad else one, output)


def _detached(_: nn.Module, args: Any, kwargs: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda one: one.detach().requires_grad_(one.requires_grad), (args, kwargs))


def _reached(loss: Tensor) -> set[str]:
    """The blocks that left their name in the autograd graph behind `loss`."""
    found: set[str] = set()
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "block"):
            found.add(node.block)
        stack += [following for following, _ in node.next_functions]
    return found


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_container(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Sequential | nn.ModuleList) and len(one) > 1 for one in module.modules())
