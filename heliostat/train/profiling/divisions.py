"""Where tensor parallelism divides the parameters of a block, from how its operations look at memory.

A product of several, as queries, keys and values in one, has several groups of columns, and every rank takes its share
of each. They show in the views that later operations have of the product's result.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import nn

from heliostat.train.profiling.cuts import Cuts
from heliostat.train.profiling.record import Call, View

_aten = torch.ops.aten
Interval = tuple[int, int]


class ParameterCut(NamedTuple):
    """Where a parameter is divided."""

    role: Literal["column", "row"]
    """Whether the output features of the product that it is in are divided, or the input features."""
    dim: int
    """Of the parameter."""
    groups: tuple[int, ...]
    """Sizes of the parts of that dimension of which every rank has its share."""
    units: int
    """Equal runs of every group that stay together, as those of a head: the most ranks that can share it."""


def parameter_cuts(calls: Sequence[Call], cuts: Cuts) -> dict[int, ParameterCut]:
    """By identity the divided parameters of a block.

    Args:
        calls: of the block, in order.
        cuts: as `find_cuts` gives them.
    """
    found: dict[int, ParameterCut] = {}
    for call, role in cuts.roles.items():
        units = cuts.units[call]
        for weight, view in zip(call.weights, call.weight_views, strict=True):
            dim = _dimension(call, role, weight, view)
            if dim is None:
                continue
            size = int(weight.shape[dim])
            groups = _groups(calls, _writer(calls, call), size, units) if role == "column" else (size,)
            if all(group % units == 0 for group in groups):
                found.setdefault(id(weight), ParameterCut(role, dim, groups, units))
    return found


def _dimension(call: Call, role: str, weight: nn.Parameter, view: View) -> int | None:
    """Which dimension of `weight` has the features; None if it is whole, or is seen in another shape."""
    if weight.dim() == 1:
        return 0 if role == "column" else None
    if call.product is None:
        return 0 if call.overload is _aten.embedding.default else None
    if call.overload is _aten.convolution.default:
        is_transposed, groups = bool(call.constants[6]), call.constants[8]
        return None if groups != 1 else int((role == "row") != is_transposed)
    # columns are the last axis of a right factor, rows of a left one
    axis = -1 if (role == "column") != call.product.weight_first else -2
    same = [
        dim
        for dim, (size, stride) in enumerate(zip(weight.shape, weight.stride(), strict=True))
        if (size, stride) == (view.shape[axis], view.strides[axis])
    ]
    return same[0] if len(same) == 1 else None


def _writer(calls: Sequence[Call], call: Call) -> Call:
    """The product whose columns `call` makes, or adds a bias to."""
    before = calls[: list(calls).index(call) + 1]
    return next(call for call in reversed(before) if call.product is not None and call.product.has_weight)


def _groups(calls: Sequence[Call], writer: Call, size: int, units: int) -> tuple[int, ...]:
    """Sizes of the groups of columns; the whole is one if nothing says otherwise."""
    output = writer.outputs[0]
    if output.shape.count(size) == 0 or writer.overload is _aten.convolution.default:
        return (size,)
    seen = sorted({one for view in _readings(calls, output, size) for one in _intervals(view, size, units)})
    merged: list[Interval] = []
    for begin, end in seen:
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    edges = [0, *(end for _, end in merged)]
    tiles = edges[:-1] == [begin for begin, _ in merged] and edges[-1] == size
    return tuple(end - begin for begin, end in merged) if tiles else (size,)


def _readings(calls: Sequence[Call], output: View, size: int) -> Iterator[View]:
    """How operations look at the memory of a product, past those that keep its columns side by side."""
    for call in calls:
        views = [view for view in call.inputs if view.storage == output.storage]
        if call.is_view or not views or (call.outputs and call.outputs[0].storage == output.storage):
            continue
        keeps = call.product is None and len(call.outputs) == 1 and call.outputs[0].shape == views[0].shape
        if keeps and views[0].shape[-1:] == (size,) and call.outputs[0].strides[-1] == 1:
            yield from _readings(calls, call.outputs[0], size)
        else:
            yield from views


def _intervals(view: View, size: int, units: int) -> Iterator[Interval]:
    """The columns that `view` covers: as many runs as its outer axes over them that are no units count."""
    axes = sorted(
        (
            (stride, count)
            for stride, count in zip(view.strides, view.shape, strict=True)
            if 0 < stride < size and count > 1
        ),
        reverse=True,
    )
    outer = []
    while axes and axes[0][1] % units:
        outer.append(axes.pop(0))
    extent = 1 + sum(stride * (count - 1) for stride, count in axes)
    for steps in product(*(range(count) for _, count in outer)):
        begin = view.offset % size + sum(step * stride for step, (stride, _) in zip(steps, outer, strict=True))
        yield begin, begin + extent
