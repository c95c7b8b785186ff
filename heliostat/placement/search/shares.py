"""How the samples of one round are shared by the replicas of a stage: by speed, in whole samples. Pure.

All stages work in the same rounds: every round the same samples go through all of them, each stage's replicas sharing
them. A replica's micro-batch is its part of a round, so that replicas of different kinds, and stages of different
widths, never wait for half a micro-batch.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

HALVINGS = 30
Shares = tuple[tuple[int, ...], ...]
"""Samples of a round for every replica, by kind."""


class Part(NamedTuple):
    """Equal replicas of a stage."""

    kind: int
    """Its place in `Ground.kinds`."""
    num_replicas: int
    num_samples: int
    """Of each global batch, one replica."""
    micro_batch: int


def share_round(counts: Sequence[int], num_samples: int, seconds: Callable[[int], Sequence[float]]) -> Shares | None:
    """Samples of one round for every replica, by kind; None if there are fewer samples than replicas.

    The least time in which the replicas can take the round between them is found by halving.

    Args:
        counts: replicas by kind.
        num_samples: of the round.
        seconds: what a replica of a kind takes for 1, 2, ... samples, never falling; enough of them that all replicas
            together can take the round.
    """
    width = sum(counts)
    if width > num_samples:
        return None
    kinds = [kind for kind, count in enumerate(counts) if count]
    if len(kinds) == 1:
        each, more = divmod(num_samples, width)
        own = (each + 1,) * more + (each,) * (width - more)
        return tuple(own if kind == kinds[0] else () for kind in range(len(counts)))
    known = {kind: seconds(kind) for kind in kinds}
    low, high = 0.0, max(own[-1] for own in known.values())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        within = sum(counts[kind] * _within(own, middle) for kind, own in known.items())
        low, high = (low, middle) if within >= num_samples else (middle, high)
    samples = {kind: _within(own, low) for kind, own in known.items()}
    left = num_samples - sum(counts[kind] * own for kind, own in samples.items())
    found = [(samples.get(kind, 0),) * count for kind, count in enumerate(counts)]
    more_s = {kind: [*own[samples[kind] : samples[kind] + 1], inf][0] for kind, own in known.items()}
    for kind in sorted(kinds, key=lambda kind: (more_s[kind], kind)):
        more = min(left, counts[kind])
        left -= more
        found[kind] = (samples[kind] + 1,) * more + (samples[kind],) * (counts[kind] - more)
    assert left == 0
    return tuple(found)


def _within(seconds: Sequence[float], limit_s: float) -> int:
    """The most samples, one at least, that take no longer than `limit_s`."""
    return max(1, bisect_right(seconds, limit_s))


def whole_step(round_shares: Sequence[Sequence[int]], round_size: int, global_batch: int) -> tuple[Part, ...] | None:
    """The replicas' samples of a whole step; the last round may be smaller.

    None if some replica would get nothing at all.
    """
    num_rounds = -(-global_batch // round_size)
    missing = num_rounds * round_size - global_batch
    found: dict[tuple[int, int, int], int] = {}
    for kind, samples in enumerate(round_shares):
        for micro_batch in samples:
            less = min(missing, micro_batch - 1 if num_rounds > 1 else 0)
            missing -= less
            key = (kind, num_rounds * micro_batch - less, micro_batch)
            found[key] = found.get(key, 0) + 1
    parts = [Part(kind, count, own, micro) for (kind, own, micro), count in found.items()]
    return tuple(_without(parts, missing)) if missing else tuple(parts)


def _without(parts: list[Part], missing: int) -> list[Part]:
    """`parts` with `missing` samples fewer: whole micro-batches of the last round are left out."""
    found = []
    for part in parts:
        each, more = divmod(missing, part.num_replicas)
        less = [min(each + (number < more), part.num_samples - 1) for number in range(part.num_replicas)]
        found += [
            part._replace(num_replicas=less.count(amount), num_samples=part.num_samples - amount)
            for amount in sorted(set(less))
        ]
        missing -= sum(less)
    assert missing == 0
    return found
