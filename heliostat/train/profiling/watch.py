"""Tells the recorder which part of a model runs, and copies the result of a part that equals one that ran."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from heliostat.train.profiling.parts import Part
from heliostat.train.profiling.record import Recorder, identity


@contextmanager
def watched(recorder: Recorder, parts: Sequence[Part], *, copies: bool) -> Iterator[None]:
    """The parts tell `recorder` when they run; with `copies` only the first of equal elements runs in full."""
    watcher = _Watcher(recorder, copies=copies)
    modules = {id(part.module): part for part in reversed(parts)}
    with replaced([(one.module, "forward", partial(watcher, one, one.module.forward)) for one in modules.values()]):
        yield


@contextmanager
def replaced(stand_ins: Sequence[tuple[Any, str, object]]) -> Iterator[None]:
    """Attributes are others for a while.

    Args:
        stand_ins: object, name of the attribute, what stands in for it.
    """
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in stand_ins]
    for owner, name, stand_in in stand_ins:
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for owner, name, original in before:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def no_gradients(ctx: Any) -> list[Tensor | None]:
    """What a backward pass returns whose values nobody looks at, for the tensors in `ctx.inputs`."""
    with ctx.recorder.paused():
        return [torch.zeros_like(one) if one is not None and one.requires_grad else None for one in ctx.inputs]


class _Copy(torch.autograd.Function):
    """What a part returns, without running it."""

    @staticmethod
    def forward(ctx: Any, recorder: Recorder, like: Sequence[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        with recorder.paused():
            results = tuple(torch.empty_like(one) for one in like)
        recorder.stand_for(inputs, results)
        ctx.recorder, ctx.inputs = recorder, inputs
        ctx.mark_non_differentiable(
            *(result for result, one in zip(results, like, strict=True) if not one.requires_grad)
        )
        return results

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        return (None, None, *no_gradients(ctx))


class _Watcher:
    """Runs in place of every part's `forward`."""

    def __init__(self, recorder: Recorder, *, copies: bool) -> None:
        self._recorder = recorder
        self._copies = copies
        self._inside = False
        self._known: dict[tuple[object, ...], tuple[int, list[Any], Any]] = {}
        """By part and shapes of its inputs: the segment, and what it returned."""

    def __call__(self, part: Part, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._inside:
            return forward(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        key = (part.sort, str(structure), tuple(map(_shape, leaves)))
        self._inside = True
        segment = self._recorder.enter(part)
        segment.inputs = tuple(identity(leaf) for leaf in leaves if isinstance(leaf, Tensor))
        try:
            if self._copies and part.is_element and key in self._known:
                segment.original, returned, shape = self._known[key]
                return self._copy(leaves, returned, shape)
            versions = [leaf._version if isinstance(leaf, Tensor) else 0 for leaf in leaves]  # noqa: SLF001
            result = forward(*args, **kwargs)
            self._known[key] = (len(self._recorder.segments) - 1, *_returned(result, leaves, versions))
            return result
        finally:
            self._recorder.leave()
            self._inside = False

    def _copy(self, leaves: Sequence[Any], returned: Sequence[Any], structure: Any) -> Any:
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        like = [one for one in returned if isinstance(one, Tensor)]
        made = iter(_Copy.apply(self._recorder, like, *inputs))  # type: ignore[no-untyped-call]
        results = [
            next(made) if isinstance(one, Tensor) else leaves[one.place] if isinstance(one, _Given) else one
            for one in returned
        ]
        return tree_unflatten(results, structure)


class _Given:
    """A result that is the input at `place`."""

    def __init__(self, place: int) -> None:
        self.place = place


def _returned(result: Any, leaves: Sequence[Any], versions: Sequence[int]) -> tuple[list[Any], Any]:
    """What a part returned, and its structure; an input that it did not change as its place."""
    given = {
        id(leaf): _Given(place)
        for place, (leaf, version) in enumerate(zip(leaves, versions, strict=True))
        if isinstance(leaf, Tensor) and leaf._version == version  # noqa: SLF001
    }
    results, structure = tree_flatten(result)
    return [given.get(id(one), one) for one in results], structure


def _shape(leaf: Any) -> object:
    if isinstance(leaf, Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.requires_grad)
    return repr(leaf) if isinstance(leaf, bool | int | float | str | None) else type(leaf)
