"""Rectangles in the coordinates of a whole tensor, and how a tensor is covered by some of those that ranks hold."""

from collections.abc import Iterable, Iterator
from math import prod
from operator import add, lt
from typing import NamedTuple

from heliostat.train.pieces import Piece


class Box(NamedTuple):
    """A rectangle with any number of dimensions, none too."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    """Exclusive."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How long it is along each dimension."""
        return tuple(end - begin for begin, end in zip(*self, strict=True))

    @property
    def volume(self) -> int:
        """Elements in it."""
        return prod(self.sizes)


def box_of(piece: Piece) -> Box:
    """Where a piece is in its tensor."""
    return Box(piece.offset, tuple(map(add, piece.offset, piece.values.shape)))


def disjoint(boxes: Iterable[Box], shape: tuple[int, ...]) -> list[tuple[Box, Box]]:
    """Boxes that cover a tensor of this shape once, each with the one of `boxes` that it is in.

    `boxes` cover the tensor together, and may overlap in any way: ranks divide the same tensor differently where one
    stage holds a tied weight whole and another holds it in parts.
    """
    distinct = sorted(set(boxes), key=lambda box: (-box.volume, box))
    found = _cut(distinct) if _any_overlap(distinct) else [(box, box) for box in distinct]
    assert sum(part.volume for part, _ in found) == prod(shape), "nobody holds a part of the tensor"
    return found


def _cut(boxes: list[Box]) -> list[tuple[Box, Box]]:
    """Of each what those before it leave."""
    found: list[tuple[Box, Box]] = []
    for box in boxes:
        parts = [box]
        for taken, _ in found:
            parts = [rest for part in parts for rest in without(part, taken)]
        found += [(part, box) for part in parts]
    return found


def _any_overlap(boxes: list[Box]) -> bool:
    """Whether two of them have something in common; fast for the thousands of rows of a large ZeRO group."""
    if len(boxes) < 2:
        return False
    dim = max(range(len(boxes[0].begin)), key=lambda dim: len({box.begin[dim] for box in boxes}))
    near: list[Box] = []
    for box in sorted(boxes, key=lambda box: box.begin[dim]):
        near = [one for one in near if one.end[dim] > box.begin[dim]]
        if any(all(map(lt, box.begin, one.end)) and all(map(lt, one.begin, box.end)) for one in near):
            return True
        near.append(box)
    return False


def without(box: Box, taken: Box) -> Iterator[Box]:
    """What is left of `box` outside of `taken`, as boxes that do not overlap."""
    low = tuple(map(max, box.begin, taken.begin))
    high = tuple(map(min, box.end, taken.end))
    if any(begin >= end for begin, end in zip(low, high, strict=True)):
        yield box
        return
    begin, end = list(box.begin), list(box.end)
    for dim in range(len(begin)):
        if begin[dim] < low[dim]:
            yield Box(tuple(begin), (*end[:dim], low[dim], *end[dim + 1 :]))
        if high[dim] < end[dim]:
            yield Box((*begin[:dim], high[dim], *begin[dim + 1 :]), tuple(end))
        begin[dim], end[dim] = low[dim], high[dim]
