"""Rules of functions that work on elements alone, or along some axes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heliostat.train.apply.tensor_bounds import Bounds, length
from heliostat.train.apply.tensor_divided import Divided, Rule, changes_first, rule_for
from heliostat.train.apply.tensor_group import TensorGroup

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
Function = Callable[..., Any]

_UNARY = {
    "contiguous", "clone", "detach", "to", "float", "half", "bfloat16", "double", "type", "type_as",
    "zeros_like", "ones_like", "full_like", "empty_like", "positive",
}  # fmt: skip
"""Functions that make of each element one, whatever else they are given."""
_RANDOM = {"dropout", "dropout_", "alpha_dropout", "rand_like", "randn_like", "bernoulli"}
"""The same, with random numbers."""
_ALONG = {"softmax", "log_softmax", "softmin", "cumsum", "cumprod", "flip", "normalize", "glu"}
"""Functions along one axis that keep their input's axes."""
_REDUCTIONS = {
    "sum", "mean", "amax", "amin", "var", "std", "norm", "logsumexp", "any", "all", "prod", "argmax", "argmin", "max",
    "min", "topk", "sort", "argsort", "vector_norm",
}  # fmt: skip
"""Functions that take an axis or several away, or order what is along one."""
_ORDERS = {"topk", "sort", "argsort"}
_OPERATORS = {
    "truediv": "div", "floordiv": "remainder", "mod": "remainder",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "invert": "bitwise_not",
}  # fmt: skip
"""Operators, and a function that is pointwise if they are."""


def _family(func: Any) -> Rule | None:
    name = func.__name__
    if name in _UNARY:
        return _unary
    if name in _RANDOM:
        return _random
    if name in _ALONG:
        return _along
    if name in _REDUCTIONS:
        return _reduction
    return _pointwise if _is_pointwise(name) else None


Divided.families.append(_family)


def _is_pointwise(name: str) -> bool:
    """Whether PyTorch calls the function so; reflected operators and those in place are as the operator itself."""
    plain = name.strip("_")
    known = [plain]
    if name.startswith("__"):
        known = [_OPERATORS.get(one, one) for one in (plain, plain[1:] if plain[0] in "ri" else plain)]
    overloads = next((found for one in known if (found := _overloads(one))), [])
    return any(torch.Tag.pointwise in one.tags for one in overloads)


def _overloads(name: str) -> list[Any]:
    packet = getattr(torch.ops.aten, name, None)
    return [getattr(packet, one) for one in packet.overloads()] if packet is not None else []


def _unary(func: Function, args: Args, kwargs: Kwargs) -> Any:
    part = args[0]
    if not isinstance(part, Divided):
        return func(part, *(one.local if isinstance(one, Divided) else one for one in args[1:]), **kwargs)
    return part.like(func(part.local, *(one.local if isinstance(one, Divided) else one for one in args[1:]), **kwargs))


def _random(func: Function, args: Args, kwargs: Kwargs) -> Any:
    part = args[0]
    given = dict(zip(("input", "p", "training"), args, strict=False)) | dict(kwargs)
    if not given.get("training", True) or given.get("p", 0.5) == 0.0:
        return _unary(func, args, kwargs)
    with part.group.own_random(part.device):
        return _unary(func, args, kwargs)


def _pointwise(func: Function, args: Args, kwargs: Kwargs) -> Any:
    tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
    parts = [one for one in tensors if isinstance(one, Divided)]
    first = parts[0] if parts else None
    if first is None or (changes_first(func.__name__) and not isinstance(args[0], Divided)):
        return NotImplemented
    axis, bounds = first.axis_from_last, first.place.bounds
    if any(one.axis_from_last != axis or one.place.bounds != bounds for one in parts):
        return NotImplemented
    result = func(
        *(local_of(one, axis, bounds, first.group) for one in args),
        **{name: local_of(one, axis, bounds, first.group) for name, one in kwargs.items()},
    )
    if not isinstance(result, Tensor):
        return NotImplemented
    if isinstance(args[0], Divided) and result is args[0].local:
        return args[0]
    return Divided(result, result.dim() - axis, bounds, first.group)


def local_of(value: Any, axis: int, bounds: Bounds, group: TensorGroup) -> Any:
    """What this rank has of an operand that is broadcast; `axis` is the divided one, 1 for the last."""
    if isinstance(value, Divided):
        return value.local
    if not isinstance(value, Tensor):
        return value
    shared = group.copy(value)
    if value.dim() < axis or value.shape[-axis] == 1:
        return shared
    return group.part(shared, value.dim() - axis, bounds)


def _along(func: Function, args: Args, kwargs: Kwargs) -> Any:
    part = args[0] if args else kwargs.get("input")
    dim = kwargs.get("dim", args[1] if len(args) > 1 else {"normalize": 1, "glu": -1}.get(func.__name__))
    if func.__name__ == "normalize":
        dim = kwargs.get("dim", args[2] if len(args) > 2 else 1)
    dims = dim if isinstance(dim, Sequence) else [dim]
    if not isinstance(part, Divided) or any(one is None or one % part.dim() == part.place.axis for one in dims):
        return NotImplemented
    return part.like(func(part.local, *args[1:], **{key: one for key, one in kwargs.items() if key != "input"}))


def _reduction(func: Function, args: Args, kwargs: Kwargs) -> Any:
    part, named = args[0] if args else None, dict(kwargs)
    if any(isinstance(one, Tensor) for one in args[1:]):
        return _pointwise(func, args, kwargs)
    if not isinstance(part, Divided):
        return NotImplemented
    place = {"topk": 2, "norm": 2, "vector_norm": 2}.get(func.__name__, 1)
    dim = named.get("dim", named.get("axis", args[place] if len(args) > place else None))
    if func.__name__ in _ORDERS and dim is None:
        dim = -1
    if dim is None:
        dims = list(range(part.dim()))
    elif isinstance(dim, int) and not isinstance(dim, bool):
        dims = [dim % part.dim()]
    elif isinstance(dim, Sequence):
        dims = [one % part.dim() for one in dim] or list(range(part.dim()))
    else:
        return NotImplemented
    if part.place.axis in dims:
        return _total(func, part, args, named) if func.__name__ in ("sum", "mean") else NotImplemented
    results = func(part.local, *args[1:], **named)

    def placed(result: Tensor) -> Tensor:
        keeps = result.dim() == part.dim()
        axis = part.place.axis if keeps else part.place.axis - sum(one < part.place.axis for one in dims)
        return Divided(result, axis, part.place.bounds, part.group)

    return placed(results) if isinstance(results, Tensor) else type(results)([placed(one) for one in results])


def _total(func: Function, part: Divided, args: Args, named: Mapping[str, Any]) -> Tensor:
    """A sum or mean over the divided axis too."""
    if func.__name__ == "sum":
        return part.group.reduce(func(part.local, *args[1:], **named))
    share = part.local.shape[part.place.axis] / length(part.place.bounds)
    return part.group.reduce(func(part.local, *args[1:], **named) * share)


@rule_for(functional.layer_norm, torch.layer_norm, functional.rms_norm, torch.rms_norm)
def _norm(func: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    part = given.pop("input")
    if not isinstance(part, Divided) or part.axis_from_last <= len(given["normalized_shape"]):
        return NotImplemented
    own = {
        name: part.group.copy(one) if isinstance(one, Tensor) and not isinstance(one, Divided) else one
        for name, one in given.items()
    }
    if any(isinstance(one, Divided) for one in own.values()):
        return NotImplemented
    return part.like(func(part.local, **own))
