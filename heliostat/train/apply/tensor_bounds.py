"""Where an axis is divided among the ranks of a tensor-parallel group. Pure.

An axis is one group of places, or several one after the other, as the columns of queries, keys and values in one
product. Of each group every rank has one run of places.
"""

from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import NamedTuple

Bounds = tuple[tuple[int, ...], ...]
"""For every group where each rank's run begins, from the group's first place; then the size of the group."""
Shape = tuple[int, ...]


class Place(NamedTuple):
    """Which axis is divided, and how."""

    axis: int
    bounds: Bounds


def even(groups: tuple[int, ...], units: int, num_ranks: int) -> Bounds:
    """Groups of so many places, each of which is `units` equal runs that stay together, dealt out to the ranks."""
    each, more = divmod(units, num_ranks)
    cuts = [rank * each + min(rank, more) for rank in range(num_ranks + 1)]
    return tuple(tuple(size // units * cut for cut in cuts) for size in groups)


def length(bounds: Bounds) -> int:
    """Places of the whole axis."""
    return sum(group[-1] for group in bounds)


@lru_cache(maxsize=4096)
def widths(bounds: Bounds) -> tuple[int, ...]:
    """Places that each rank has."""
    return tuple(sum(runs) for runs in zip(*(tuple(b - a for a, b in pairwise(one)) for one in bounds), strict=True))


@lru_cache(maxsize=4096)
def spans(bounds: Bounds, rank: int) -> tuple[tuple[int, int], ...]:
    """From, to exclusive, of the places of one rank; neighbours joined. One empty span if it has none."""
    found: list[tuple[int, int]] = []
    first = 0
    for group in bounds:
        begin, end = first + group[rank], first + group[rank + 1]
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end)
        elif begin < end:
            found.append((begin, end))
        first += group[-1]
    return tuple(found) or ((0, 0),)


def scaled(bounds: Bounds, factor: int) -> Bounds:
    """Every place becomes `factor` neighbouring ones."""
    return tuple(tuple(factor * bound for bound in group) for group in bounds)


def range_of(bounds: Bounds, begin: int, size: int) -> tuple[Bounds, int] | None:
    """The bounds of a range of places that is some of the groups, and how many come before; None if it is not."""
    first = 0
    for number, _ in enumerate(bounds):
        if first == begin:
            found: list[tuple[int, ...]] = []
            for group in bounds[number:]:
                found.append(group)
                size -= group[-1]
                if size <= 0:
                    return (tuple(found), number) if size == 0 else None
        first += bounds[number][-1]
    return None


@lru_cache(maxsize=4096)
def reshaped(shape: Shape, place: Place, target: Shape) -> Place | None:
    """Where the division runs after a view of `shape` as `target`; None if it runs along no single axis."""
    for (first, end), (new_first, new_end) in _blocks(shape, target):
        if not first <= place.axis < end:
            continue
        before, after = prod(shape[first : place.axis]), prod(shape[place.axis + 1 : end])
        flat = scaled(place.bounds, after) * before
        for axis in range(new_first, new_end):
            found = _along(flat, prod(target[new_first:axis]), target[axis], prod(target[axis + 1 : new_end]))
            if found is not None:
                return Place(axis, found)
    return None


def _along(flat: Bounds, repeats: int, size: int, width: int) -> Bounds | None:
    """The division of an axis of `size` places of `width` elements that comes `repeats` times; None if it has none."""
    num_groups, rest = divmod(len(flat), repeats)
    groups = flat[:num_groups]
    fits = not rest and groups * repeats == flat and length(groups) == size * width
    if not fits or any(bound % width for group in groups for bound in group):
        return None
    return tuple(tuple(bound // width for bound in group) for group in groups)


def _blocks(shape: Shape, target: Shape) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Runs of axes of both that hold the same elements, each as short as can be."""
    found = []
    i = j = 0
    while i < len(shape) and j < len(target):
        first, new_first, size, new_size = i, j, shape[i], target[j]
        i, j = i + 1, j + 1
        while size != new_size:
            if size < new_size:
                size, i = size * shape[i], i + 1
            else:
                new_size, j = new_size * target[j], j + 1
        found.append(((first, i), (new_first, j)))
    return found
