"""Matrix products and convolutions among the dispatched operations."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

_aten = torch.ops.aten
_OPERANDS = {
    _aten.mm.default: 0,
    _aten.bmm.default: 0,
    _aten.addmm.default: 1,
    _aten.baddbmm.default: 1,
    _aten._grouped_mm.default: 0,  # noqa: SLF001
}
"""Where the two matrices stand among the arguments."""


class Product(NamedTuple):
    """`batch` products rows x k by k x n over all samples, or an attention of `rows` queries and `n` keys."""

    rows: int
    n: int
    k: int
    batch: int = 1
    has_weight: bool = True
    weight_first: bool = False
    """The weight is the left matrix: rows and columns are exchanged here."""
    is_attention: bool = False
    causal: bool = False


def product_of(
    func: Any, args: Sequence[Any], outputs: Sequence[Tensor], is_weight: Callable[[Tensor], bool]
) -> Product | None:
    """The product that `func` is; None if it is none, or one that memory traffic bounds (a depthwise convolution)."""
    if func is _aten.convolution.default:
        return _convolution(args[0], args[1], outputs[0], is_transposed=args[6], groups=args[8])
    place = _OPERANDS.get(func)
    if place is None:
        return None
    left, right = args[place], args[place + 1]
    batch = int(right.shape[0]) if right.dim() == 3 else 1
    rows, k, n = int(left.shape[-2]), int(left.shape[-1]), int(right.shape[-1])
    if left.dim() == 2 and right.dim() == 3:
        rows //= batch  # the rows are dealt out to the groups
    if not is_weight(right) and is_weight(left):
        return Product(n, rows, k, batch, weight_first=True)
    return Product(rows, n, k, batch, has_weight=is_weight(right))


def _convolution(image: Tensor, kernel: Tensor, result: Tensor, *, is_transposed: bool, groups: int) -> Product | None:
    if groups == image.shape[1] and groups > 1:
        return None
    if is_transposed:
        positions, k, n = prod(image.shape[2:]), int(kernel.shape[0]) // groups, prod(kernel.shape[1:])
    else:
        positions, k, n = prod(result.shape[2:]), prod(kernel.shape[1:]), int(kernel.shape[0]) // groups
    return Product(int(image.shape[0]) * positions, n, k, groups)
