"""How the samples of one round are shared by the replicas of a stage: by speed, in whole samples. Pure.

All stages work in the same rounds: every round the same samples go through all of them, each stage's replicas sharing
them. A replica's micro-batch is its part of a round, so that replicas of different kinds, and stages of different
widths, never wait for half a micro-batch.
"""

from bisect import bisect_right
from collections import Counter
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


def step_samples(round_samples: Sequence[int], global_batch: int) -> list[int]:
    """Of each replica, from its samples of a round, those of a whole step of at least one round.

    The last round may be smaller. In every other one a replica has all of its part, so that stages that share a round
    in different ways agree on each.
    """
    round_size = sum(round_samples)
    assert round_size <= global_batch
    num_rounds = -(-global_batch // round_size)
    missing = num_rounds * round_size - global_batch
    left = list(round_samples)
    for least in (1, 0):  # as long as it can be, nobody is without any
        for place, own in enumerate(left):
            less = min(missing, own - least)
            left[place] -= less
            missing -= less
    return [(num_rounds - 1) * own + rest for own, rest in zip(round_samples, left, strict=True)]


def whole_step(round_shares: Shares, global_batch: int) -> tuple[Part, ...]:
    """The replicas of a whole step, by kind and share."""
    replicas = [(kind, micro_batch) for kind, own in enumerate(round_shares) for micro_batch in own]
    samples = step_samples([micro_batch for _, micro_batch in replicas], global_batch)
    found = Counter((kind, own, micro) for (kind, micro), own in zip(replicas, samples, strict=True))
    return tuple(Part(kind, count, own, micro) for (kind, own, micro), count in found.items())
