"""Ends of pipelines, and which of them are worth keeping. Pure.

Columns of numbers, one row for each label, so that thousands are extended at once.
"""

from typing import NamedTuple

import numpy as np

from heliostat.placement.search.chain import Floats, Ints

SPARE = 8
"""Labels that are compared with one another, for each that may be kept."""


class Labels(NamedTuple):
    """The stages from some block to the last."""

    begin: Ints
    """The block where they begin."""
    room: Floats
    """What they take of `Menu.room`."""
    bound_s: Floats
    """What they take at least, without the tail."""
    slowest_s: Floats
    """Seconds a round of the slowest stage."""
    way_s: Floats
    """One round's way through all of them."""
    slowest_way_s: Floats
    """The slowest stage's part of it."""
    tail_s: Floats
    """The longest synchronisation and optimizer step."""
    last_tail_s: Floats
    """That of the last stage alone."""
    last: Ints
    """The last stage's shape, as its place in the tables; -1 before there is one."""
    table: Ints
    """The first stage's shape so far."""
    price: Floats
    link: Ints
    """The place of the first stage in the list of all stages made."""
    estimate: Floats
    """The worth that a whole pipeline with this end is guessed to have."""

    @classmethod
    def start(cls, num_blocks: int, num_rows: int) -> "Labels":
        """No stage yet."""
        zero, none = np.zeros(1), np.array([-1])
        return cls(
            np.array([num_blocks]), np.zeros((1, num_rows)), zero, zero, zero, zero, zero, zero, none, none, zero,
            none, zero,
        )  # fmt: skip

    def take(self, places: Ints) -> "Labels":
        """The labels at `places`."""
        return Labels._make(column[places] for column in self)


class Candidates(NamedTuple):
    """Stages that may come before a label's."""

    table: Ints
    option: Ints
    first: Ints
    """The block where it begins."""
    work_s: Floats
    way_s: Floats
    far_s: Floats
    """To hand on and get back, between nodes."""
    near_s: Floats
    """The same inside one."""
    tail_s: Floats

    def take(self, places: Ints) -> "Candidates":
        """The candidates at `places`."""
        return Candidates._make(column[places] for column in self)


def join(found: list[Candidates]) -> Candidates:
    """All of `found`, which is not empty."""
    return Candidates._make(np.concatenate(column) for column in zip(*found, strict=True))


def fronts(labels: Labels, most: int, *, shortest_first: bool) -> Ints:
    """The places of labels that no other of equal begin, room, first and last shape dominates, the best first.

    Args:
        labels: which.
        most: how many may be kept.
        shortest_first: compare only how far they have come.
    """
    measure = labels.begin + 0.0 if shortest_first else labels.estimate
    many = SPARE * most
    near = np.argpartition(measure, many)[:many] if len(measure) > many else np.arange(len(measure))
    near = near[np.lexsort((labels.way_s[near], labels.slowest_s[near], measure[near]))]
    if shortest_first:
        keys = labels.room[near]
        own = [(0.0, 0.0, 0.0)] * len(near)
    else:
        keys = np.column_stack([column[near] for column in (labels.begin, labels.table, labels.last, labels.room)])
        ways = labels.way_s - labels.slowest_way_s
        own = list(zip(*(one[near].tolist() for one in (labels.slowest_s, ways, labels.tail_s)), strict=True))
    groups: dict[bytes, list[tuple[float, float, float]]] = {}
    kept = []
    for place, key in enumerate(map(bytes, np.ascontiguousarray(keys))):
        slowest, way, tail = own[place]
        front = groups.setdefault(key, [])
        if any(one[0] <= slowest and one[1] <= way and one[2] <= tail for one in front):
            continue
        front.append(own[place])
        kept.append(place)
        if len(kept) == most:
            break
    return near[np.array(kept, dtype=np.int64)]
