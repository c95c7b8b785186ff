"""What one rank holds of a tensor that others may hold too, or hold the rest of: rectangles with their places.

One form for everything that is written to a checkpoint or read from one: a whole copy, a tensor-parallel part, a
ZeRO shard of either. So a checkpoint knows nothing of the plan that wrote it, and any plan can read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A rectangle of a tensor."""

    offset: tuple[int, ...]
    """Of its first element in the whole tensor."""
    values: Tensor
    """A view of what the rank holds; reading a checkpoint writes into it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """All that a rank holds of a tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    pieces: tuple[Piece, ...]


class Division(NamedTuple):
    """Which part of a tensor a rank of a tensor-parallel group has: some spans along one dimension, joined."""

    dim: int
    spans: tuple[tuple[int, int], ...]
    """From, to exclusive, along `dim` of the whole tensor."""

    def of(self, whole: Tensor) -> Tensor:
        """The part of `whole` that the rank has, as a tensor of its own."""
        parts = [whole.narrow(self.dim, begin, end - begin) for begin, end in self.spans]
        return torch.cat(parts, self.dim)


def whole(tensor: Tensor) -> Held:
    """A rank that holds all of it."""
    return Held(shape=tuple(tensor.shape), pieces=(Piece(offset=(0,) * tensor.dim(), values=tensor),))


def held(rows: Tensor, shape: tuple[int, ...], division: Division | None, first_row: int = 0) -> Held:
    """What a rank holds of a tensor.

    Args:
        rows: some rows, along the first dimension, of its part of the tensor; all of them without ZeRO.
        shape: of the whole tensor.
        division: that made the part; None if it is the whole tensor.
        first_row: of `rows` in the part.
    """
    return Held(shape=shape, pieces=tuple(_pieces(rows, division, first_row)) if rows.numel() else ())


def _pieces(rows: Tensor, division: Division | None, first_row: int) -> Iterator[Piece]:
    start = (first_row, *(0,) * (rows.dim() - 1)) if rows.dim() else ()
    if division is None:
        yield Piece(offset=start, values=rows)
        return
    dim, place = division.dim, 0
    shift = first_row if dim == 0 else 0
    for begin, end in division.spans:
        low, high = max(place, shift), min(place + end - begin, shift + rows.shape[dim])
        if low < high:
            offset = list(start)
            offset[dim] = begin + low - place
            yield Piece(offset=tuple(offset), values=rows.narrow(dim, low - shift, high - low))
        place += end - begin
