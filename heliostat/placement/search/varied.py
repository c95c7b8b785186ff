"""A choice of the best that leaves no sort out. Pure.

Estimates are wrong by more between plans on different kinds of device than between plans on the same, so the best on
each set of kinds go on, beside the best of all.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def varied(ranked: Sequence[T], most: int, sort_of: Callable[[T], Hashable]) -> list[T]:
    """At most `most` of `ranked`, in its order: three quarters the best, the others the best of each sort in turn."""
    if len(ranked) <= most:
        return list(ranked)
    chosen = set(range((3 * most + 3) // 4))
    sorts: dict[Hashable, list[int]] = {}
    for place, one in enumerate(ranked):
        sorts.setdefault(sort_of(one), []).append(place)
    depth = 0
    while len(chosen) < most:
        for places in sorts.values():
            if depth < len(places) and len(chosen) < most:
                chosen.add(places[depth])
        depth += 1
    return [ranked[place] for place in sorted(chosen)]
