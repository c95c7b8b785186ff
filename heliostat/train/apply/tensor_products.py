"""Rules of products: what a divided axis of an operand makes of the result.

An axis that the result has stays divided. Over one that the product sums over, every rank has a part of the sum.
"""

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from heliostat.train.apply.tensor_bounds import Bounds, widths
from heliostat.train.apply.tensor_divided import Divided, rule_for
from heliostat.train.apply.tensor_elements import local_of
from heliostat.train.apply.tensor_group import TensorGroup

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
Function = Callable[..., Any]
Label = str | int
"""Of an axis: equal ones belong together. Batch axes have numbers, counted from the last."""


_ALIGNED_BYTES = 16
"""What the kernel of grouped products asks of strides."""


class Operand(NamedTuple):
    """A factor, and what its axes are."""

    tensor: Tensor
    labels: Sequence[Label]


@rule_for(functional.linear)
def _linear(_: Function, args: Args, kwargs: Kwargs) -> Any:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    tokens, weight = given["input"], given["weight"]
    batch = _batch(tokens.dim() - 1)
    return product(
        functional.linear,
        (Operand(tokens, [*batch, "k"]), Operand(weight, ["n", "k"])),
        [*batch, "n"],
        given.get("bias"),
    )


@rule_for(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm)
def _matmul(_: Function, args: Args, kwargs: Kwargs) -> Any:
    left, right = [*args, *kwargs.values()]
    return _matrices(left, right, None)


@rule_for(Tensor.__rmatmul__)
def _rmatmul(_: Function, args: Args, __: Kwargs) -> Any:
    return _matrices(args[1], args[0], None)


@rule_for(torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm)
def _addmm(_: Function, args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1 or len(args) != 3:
        return NotImplemented
    return _matrices(args[1], args[2], args[0])


def _matrices(left: Tensor, right: Tensor, bias: Tensor | None) -> Any:
    its, mine = _batch(right.dim() - 2), _batch(left.dim() - 2)
    return product(
        _plus(torch.matmul),
        (
            Operand(left, [*mine, "m", "k"] if left.dim() > 1 else ["k"]),
            Operand(right, [*its, "k", "n"] if right.dim() > 1 else ["k"]),
        ),
        [*(mine if len(mine) > len(its) else its), *(["m"] * (left.dim() > 1)), *(["n"] * (right.dim() > 1))],
        bias,
    )


@rule_for(torch._grouped_mm)  # noqa: SLF001 functional.grouped_mm calls it
def _grouped(func: Function, args: Args, kwargs: Kwargs) -> Any:
    rows, matrices = args[0], args[1]
    parts = [one for one in (rows, matrices) if isinstance(one, Divided)]
    if rows.dim() != 2 or matrices.dim() != 3 or kwargs.get("bias") is not None:
        return NotImplemented
    if any(width * rows.element_size() % _ALIGNED_BYTES for part in parts for width in widths(part.place.bounds)):
        return NotImplemented
    return product(
        lambda rows, matrices, _: func(rows, matrices, *args[2:], **kwargs),
        (Operand(rows, ["row", "k"]), Operand(matrices, ["expert", "k", "n"])),
        ["row", "n"],
        None,
        in_order=False,
    )


@rule_for(torch.einsum, torch.functional.einsum)
def _einsum(func: Function, args: Args, _: Kwargs) -> Any:
    equation, tensors = args[0], args[1:] if isinstance(args[1], Tensor) else tuple(args[1])
    if not isinstance(equation, str) or "." in equation:
        return NotImplemented
    taken, arrow, made = equation.replace(" ", "").partition("->")
    operands = [Operand(one, labels) for one, labels in zip(tensors, taken.split(","), strict=True)]
    if not arrow or any(len(set(one.labels)) < len(one.labels) for one in operands):
        return NotImplemented
    return product(lambda *locals_: func(equation, *locals_[: len(operands)]), operands, made, None)


@rule_for(functional.conv1d, functional.conv2d, functional.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
def _convolution(func: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    image, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
    if given.get("groups", 1) != 1 or image.dim() != weight.dim():
        return NotImplemented
    space = [f"position {axis}" for axis in range(image.dim() - 2)]
    window = [f"window {axis}" for axis in range(image.dim() - 2)]
    if isinstance(image, Divided) and image.place.axis > 1:
        return NotImplemented

    def run(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = func(image, weight, None if bias is None else bias.flatten(), **given)
        return result

    return product(
        run,
        (Operand(image, ["b", "k", *space]), Operand(weight, ["n", "k", *window])),
        ["b", "n", *space],
        None if bias is None else bias.view(-1, *(1 for _ in space)),
    )


@rule_for(functional.embedding)
def _embedding(_: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    ids, table, padding = given["input"], given["weight"], given.get("padding_idx")
    if given.get("max_norm") is not None or given.get("scale_grad_by_freq") or isinstance(ids, Divided):
        return NotImplemented
    (axis, bounds), group = table.place, table.group
    if axis == 1:
        return Divided(functional.embedding(ids, table.local, padding), -1, bounds, group)
    if len(bounds) != 1:
        return NotImplemented
    begin, end = bounds[0][group.rank], bounds[0][group.rank + 1]
    elsewhere = (ids < begin) | (ids >= end)
    own = padding - begin if padding is not None and begin <= padding < end else None
    rows = functional.embedding((ids - begin).masked_fill(elsewhere, 0), table.local, own)
    return summed(rows.masked_fill(elsewhere.unsqueeze(-1), 0.0), group)


@rule_for(functional.scaled_dot_product_attention)
def _attention(func: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    three = [given.pop(name) for name in ("query", "key", "value")]
    parts = [one for one in three if isinstance(one, Divided)]
    query, mask, dropout = three[0], given.pop("attn_mask", None), given.get("dropout_p", 0.0)
    if len(parts) < 3 or len({one.axis_from_last for one in parts}) > 1 or query.axis_from_last < 3:
        return NotImplemented
    if len({_shares(one.place.bounds) for one in parts}) > 1 or (isinstance(mask, Divided) and mask.axis_from_last < 3):
        return NotImplemented
    if isinstance(mask, Divided) and (mask.axis_from_last, mask.place.bounds) != (
        query.axis_from_last,
        query.place.bounds,
    ):
        return NotImplemented
    own = local_of(mask, query.axis_from_last, query.place.bounds, query.group)

    def run() -> Any:
        return query.like(func(*(one.local for one in parts), attn_mask=own, **given))

    if not dropout:
        return run()
    with query.group.own_random(query.device):
        return run()


def _seen_through(function: Function) -> Function:
    """`function` of torch without its own look for rules: those of the functions that it calls apply."""
    known = function.__globals__ | {"has_torch_function": lambda _: False}
    return FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)


_attend_to_heads = _seen_through(functional.multi_head_attention_forward)


@rule_for(functional.multi_head_attention_forward)
def _multi_head_attention(_: Function, args: Args, kwargs: Kwargs) -> Any:
    return _attend_to_heads(*args, **kwargs)


def product(
    run: Callable[..., Tensor],
    operands: Sequence[Operand],
    made: Sequence[Label],
    bias: Tensor | None,
    *,
    in_order: bool = True,
) -> Any:
    """A product of which some operands are parts.

    Args:
        run: called with what this rank has of the operands and, or None, of the bias.
        operands: the last one that is a part says which axis is divided.
        made: the result's axes.
        bias: added to the result, its axes being the result's last ones.
        in_order: whether rows of the result may be tokens in the order of their sequence.
    """
    parts = [one for one in operands if isinstance(one.tensor, Divided)]
    if not parts:
        return NotImplemented
    leading = parts[-1].tensor
    assert isinstance(leading, Divided)
    label, bounds, group = parts[-1].labels[leading.place.axis], leading.place.bounds, leading.group
    locals_ = [_local(one, label, bounds, group) for one in operands]
    if label not in made:
        partial = run(*locals_, None)
        result = summed(partial, group) if in_order else group.reduce(partial)
        return result if bias is None else result + bias
    axis = list(made).index(label)
    own = None if bias is None else _local_bias(bias, len(made) - axis, bounds, group)
    return NotImplemented if own is NotImplemented else Divided(run(*locals_, own), axis, bounds, group)


def summed(partial: Tensor, group: TensorGroup) -> Tensor:
    """The sum of what the ranks have: whole, or with sequence parallelism the rank's part of it."""
    place = group.along_sequence(tuple(partial.shape))
    if place is None:
        return group.reduce(partial)
    return Divided(group.reduce_scatter(partial, *place), *place, group)


def _local(operand: Operand, label: Label, bounds: Bounds, group: TensorGroup) -> Tensor:
    """What this rank needs of an operand, where the axis called `label` is divided."""
    tensor, labels = operand
    if isinstance(tensor, Divided):
        if labels[tensor.place.axis] == label and tensor.place.bounds == bounds:
            return tensor.local
        shared = group.gather_copy(tensor.local, *tensor.place)
    else:
        shared = group.copy(tensor)
    if label not in labels:
        return shared
    axis = list(labels).index(label)
    return shared if shared.shape[axis] == 1 else group.part(shared, axis, bounds)


def _local_bias(bias: Tensor, axis: int, bounds: Bounds, group: TensorGroup) -> Any:
    if isinstance(bias, Divided) and (bias.axis_from_last, bias.place.bounds) != (axis, bounds):
        return NotImplemented
    return local_of(bias, axis, bounds, group)


def _plus(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def added(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        result = run(left, right)
        return result if bias is None else result + bias

    return added


def _batch(dims: int) -> list[Label]:
    return list(range(max(0, dims), 0, -1))


def _shares(bounds: Bounds) -> tuple[float, ...]:
    """The part of the axis that each rank has, where it is one run."""
    return tuple(bound / bounds[0][-1] for bound in bounds[0]) if len(bounds) == 1 else ()
