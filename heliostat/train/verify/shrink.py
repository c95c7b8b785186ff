"""A small step that has the shape of a plan's step: the same ranks, the same turns, few samples. Pure."""

from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise

from heliostat.train.apply.roles import Interval, Round

SMALLEST = 2
"""Samples of the replica with the fewest, where it has so many: a loss over one row shows no mistake in a mean."""
Sizes = tuple[tuple[int, ...], ...]
"""Samples of one round, by stage and replica."""


def shrunk(rounds: Sequence[Round]) -> tuple[Round, ...]:
    """Few rounds with few samples.

    Samples keep their proportion as far as whole numbers allow, and every replica that has some keeps some. Of equal
    rounds as many are kept as fill a pipeline twice; of all rounds as many as leave the same rest when divided by the
    number of stages, which an interleaved schedule asks for.
    """
    num_stages = len(rounds[0].spans)
    found: list[Round] = []
    begin = 0
    for sizes, equal in groupby(rounds, key=_sizes):
        small = _small(sizes)
        for _ in range(_kept(len(list(equal)), num_stages)):
            found.append(Round(len(found), tuple(_spans(own, begin) for own in small)))
            begin += sum(small[0])
    return tuple(found)


def num_samples(rounds: Sequence[Round]) -> int:
    """Of all rounds together."""
    return rounds[-1].spans[0][-1].end


def _kept(many: int, num_stages: int) -> int:
    most = 2 * num_stages
    return many if many <= most else most + many % num_stages


def _sizes(one: Round) -> Sizes:
    return tuple(tuple(span.size for span in own) for own in one.spans)


def _small(sizes: Sizes) -> Sizes:
    total = max(-(-sum(own) // min(size for size in own if size)) for own in sizes)
    total = max(total, *(sum(1 for size in own if size) for own in sizes))
    return tuple(_divided(own, min(sum(own), SMALLEST * total)) for own in sizes)


def _divided(sizes: Sequence[int], total: int) -> tuple[int, ...]:
    """`total` samples in proportion to `sizes`, at least one where there was one: largest remainders first."""
    exact = [total * size / sum(sizes) for size in sizes]
    found = [max(int(one), 1) if size else 0 for one, size in zip(exact, sizes, strict=True)]
    while sum(found) < total:
        found[max(range(len(found)), key=lambda at: exact[at] - found[at])] += 1
    while sum(found) > total:
        found[max((at for at in range(len(found)) if found[at] > 1), key=lambda at: found[at] - exact[at])] -= 1
    return tuple(found)


def _spans(sizes: Sequence[int], begin: int) -> tuple[Interval, ...]:
    return tuple(Interval(low, high) for low, high in pairwise(accumulate(sizes, initial=begin)))
