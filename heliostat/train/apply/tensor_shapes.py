"""Rules of functions that look at a tensor in another shape, or join and split tensors."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heliostat.train.apply.tensor_bounds import range_of, reshaped, scaled
from heliostat.train.apply.tensor_divided import Divided, rule_for

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
Function = Callable[..., Any]


@rule_for(Tensor.view, Tensor.reshape, torch.reshape)
def _reshape(_: Function, args: Args, kwargs: Kwargs) -> Any:
    if not isinstance(args[0], Divided) or isinstance(args[1] if args[1:] else kwargs.get("dtype"), torch.dtype):
        return NotImplemented
    sizes = _sizes(args[1:]) if args[1:] else tuple(kwargs.get("shape", kwargs.get("size", ())))
    return _as(args[0], sizes)


@rule_for(Tensor.view_as, Tensor.reshape_as)
def _like(_: Function, args: Args, __: Kwargs) -> Any:
    return _as(args[0], tuple(args[1].shape)) if isinstance(args[0], Divided) else args[0].reshape(args[1].shape)


@rule_for(Tensor.flatten, torch.flatten)
def _flatten(_: Function, args: Args, kwargs: Kwargs) -> Any:
    tensor, start, end = _bound(args, kwargs, input=None, start_dim=0, end_dim=-1)
    shape = tuple(tensor.shape)
    start, end = start % len(shape), end % len(shape)
    return _as(tensor, (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :]))


@rule_for(Tensor.unflatten, torch.unflatten)
def _unflatten(_: Function, args: Args, kwargs: Kwargs) -> Any:
    tensor, dim, sizes = _bound(args, kwargs, input=None, dim=0, sizes=())
    shape = tuple(tensor.shape)
    dim %= len(shape)
    return _as(tensor, (*shape[:dim], *_known(tuple(sizes), shape[dim]), *shape[dim + 1 :]))


@rule_for(
    Tensor.transpose, torch.transpose, Tensor.swapaxes, torch.swapaxes, Tensor.swapdims, torch.swapdims,
    Tensor.permute, torch.permute, Tensor.movedim, torch.movedim, Tensor.moveaxis, torch.moveaxis, Tensor.t, torch.t,
    Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
    *(getattr(Tensor, name).__get__ for name in ("T", "mT")), Tensor.adjoint, Tensor.unfold,
)  # fmt: skip
def _moved(func: Function, args: Args, kwargs: Kwargs) -> Any:
    return _viewed(func, args[0], lambda tensor: func(tensor, *args[1:], **kwargs)) if args else NotImplemented


@rule_for(Tensor.__getitem__)
def _item(func: Function, args: Args, _: Kwargs) -> Any:
    part, index = args
    plain = index if isinstance(index, tuple) else (index,)
    if not isinstance(part, Divided) or not all(_is_simple(one) for one in plain):
        return NotImplemented
    return _viewed(func, part, lambda tensor: func(tensor, index))


@rule_for(Tensor.narrow, torch.narrow, Tensor.select, torch.select)
def _taken(func: Function, args: Args, kwargs: Kwargs) -> Any:
    if any(isinstance(one, Tensor) for one in args[1:]):
        return NotImplemented
    return _viewed(func, args[0], lambda tensor: func(tensor, *args[1:], **kwargs))


@rule_for(
    Tensor.split, torch.split, torch.functional.split, Tensor.split_with_sizes, torch.split_with_sizes, Tensor.chunk,
    torch.chunk, Tensor.tensor_split, torch.tensor_split, Tensor.unbind, torch.unbind,
)  # fmt: skip
def _split(func: Function, args: Args, kwargs: Kwargs) -> Any:
    return _viewed(func, args[0], lambda tensor: func(tensor, *args[1:], **kwargs))


@rule_for(Tensor.__iter__)
def _iterated(_: Function, args: Args, __: Kwargs) -> Any:
    return iter(torch.unbind(args[0], 0))


@rule_for(Tensor.expand, Tensor.expand_as, torch.broadcast_to, Tensor.broadcast_to)
def _expand(_: Function, args: Args, kwargs: Kwargs) -> Any:
    part = args[0]
    if not isinstance(part, Divided):
        return args[0].expand(args[1].shape)
    wanted = args[1].shape if args[1:] and isinstance(args[1], Tensor) else _sizes(args[1:])
    sizes = list(wanted or kwargs.get("size", ()))
    axis = len(sizes) - part.axis_from_last
    sizes[axis] = -1
    return Divided(part.local.expand(sizes), axis, part.place.bounds, part.group)


@rule_for(Tensor.repeat)
def _repeat(_: Function, args: Args, __: Kwargs) -> Any:
    part, times = args[0], _sizes(args[1:])
    axis = len(times) - part.axis_from_last
    return Divided(part.local.repeat(times), axis, part.place.bounds * times[axis], part.group)


@rule_for(Tensor.repeat_interleave, torch.repeat_interleave)
def _interleave(_: Function, args: Args, kwargs: Kwargs) -> Any:
    part, times, dim = _bound(args, kwargs, input=None, repeats=None, dim=None)
    if not isinstance(part, Divided) or not isinstance(times, int) or dim is None:
        return NotImplemented
    bounds = scaled(part.place.bounds, times) if dim % part.dim() == part.place.axis else part.place.bounds
    return Divided(part.local.repeat_interleave(times, dim), part.place.axis, bounds, part.group)


@rule_for(torch.cat, torch.concat, torch.concatenate)
def _cat(_: Function, args: Args, kwargs: Kwargs) -> Any:
    tensors, dim = _bound(args, kwargs, tensors=(), dim=0)
    # a tensor without elements and with one axis joins anything
    tensors = [one for one in tensors if one.dim() > 1 or one.numel() or isinstance(one, Divided)]
    first = next(one for one in tensors if isinstance(one, Divided))
    if dim % first.dim() == first.place.axis:
        if not all(isinstance(one, Divided) and one.place.axis == first.place.axis for one in tensors):
            return NotImplemented
        bounds = tuple(group for one in tensors for group in one.place.bounds)
        return Divided(_in_groups([one.local for one in tensors], dim), first.place.axis, bounds, first.group)
    locals_ = _alike(tensors, first)
    return NotImplemented if locals_ is None else first.like(torch.cat(locals_, dim))


@rule_for(torch.stack)
def _stack(_: Function, args: Args, kwargs: Kwargs) -> Any:
    tensors, dim = _bound(args, kwargs, tensors=(), dim=0)
    first = next(one for one in tensors if isinstance(one, Divided))
    locals_ = _alike(tensors, first)
    if locals_ is None:
        return NotImplemented
    axis = first.place.axis + (dim % (first.dim() + 1) <= first.place.axis)
    return Divided(torch.stack(locals_, dim), axis, first.place.bounds, first.group)


@rule_for(functional.pad)
def _pad(func: Function, args: Args, kwargs: Kwargs) -> Any:
    part, amounts = args[0], args[1] if args[1:] else kwargs["pad"]
    if not isinstance(part, Divided) or len(amounts) >= 2 * part.axis_from_last:
        return NotImplemented
    return part.like(func(part.local, *args[1:], **kwargs))


def _as(part: Divided, target: tuple[int, ...]) -> Any:
    shape = tuple(part.shape)
    target = _known(target, prod(shape))
    place = reshaped(shape, part.place, target)
    if place is None:
        return part.gathered().reshape(target)
    sizes = list(target)
    sizes[place.axis] = -1
    return Divided(part.local.reshape(sizes), *place, part.group)


def _viewed(func: Function, part: Any, run: Callable[[Tensor], Any]) -> Any:
    """What `run` makes of `part`, told by what it makes of a tensor in which only the divided axis has a stride."""
    if not isinstance(part, Divided):
        return NotImplemented
    shape, axis = tuple(part.shape), part.place.axis
    strides = [int(number == axis) for number in range(len(shape))]
    seen = run(torch.empty(shape[axis], device="cpu").as_strided(shape, strides))
    if isinstance(seen, Tensor):
        return _view(func, part, seen, run)
    found = [_view(func, part, one, lambda tensor, at=at: run(tensor)[at]) for at, one in enumerate(seen)]  # type: ignore[misc]
    return NotImplemented if any(one is NotImplemented for one in found) else tuple(found)


def _view(_: Function, part: Divided, seen: Tensor, run: Callable[[Tensor], Tensor]) -> Any:
    axes = [axis for axis, stride in enumerate(seen.stride()) if stride and seen.shape[axis] > 1]
    if len(axes) != 1 or seen.stride(axes[0]) != 1:
        return NotImplemented
    found = range_of(part.place.bounds, int(seen.storage_offset()), seen.shape[axes[0]])
    if found is None:
        return NotImplemented
    bounds, before = found
    if bounds == part.place.bounds:
        made = run(part.local)
        # where the part is one place wide, an axis may have gone with it
        return Divided(made, axes[0], bounds, part.group) if made.dim() == seen.dim() else NotImplemented
    return _some_groups(part, seen, axes[0], bounds, before)


def _some_groups(part: Divided, seen: Tensor, axis: int, bounds: Any, before: int) -> Any:
    """A range of the divided axis, and all of every other."""
    if axis != part.place.axis or seen.dim() != part.dim():
        return NotImplemented
    if any(mine != its for at, (mine, its) in enumerate(zip(part.shape, seen.shape, strict=True)) if at != axis):
        return NotImplemented
    own = [group[part.group.rank + 1] - group[part.group.rank] for group in part.place.bounds]
    first = sum(own[:before])
    local = part.local.narrow(axis, first, sum(own[before : before + len(bounds)]))
    return Divided(local, axis, bounds, part.group)


def _alike(tensors: Sequence[Tensor], first: Divided) -> list[Tensor] | None:
    """What this rank has of tensors with as many axes; None if others are divided in another way."""
    found = []
    for one in tensors:
        if isinstance(one, Divided):
            if one.place != first.place:
                return None
            found.append(one.local)
        else:
            found.append(first.group.part(first.group.copy(one), *first.place))
    return found


def _in_groups(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim)


def _is_simple(index: object) -> bool:
    return index is None or index is Ellipsis or (isinstance(index, int | slice) and not isinstance(index, bool))


def _sizes(args: Args) -> tuple[int, ...]:
    """From `f(2, 3)` or `f((2, 3))`."""
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else tuple(args)


def _known(sizes: tuple[int, ...], total: int) -> tuple[int, ...]:
    """With the size that was left open."""
    if -1 not in sizes:
        return sizes
    rest = total // max(1, -prod(sizes))
    return tuple(rest if size == -1 else size for size in sizes)


def _bound(args: Args, kwargs: Kwargs, **defaults: Any) -> list[Any]:
    """Arguments in the order of `defaults`, which name them."""
    given = dict(zip(defaults, args, strict=False)) | dict(kwargs)
    return [given.get(name, default) for name, default in defaults.items()]
