"""Which blocks each stage holds, part by part, where an interleaved schedule gives it several. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Blocks `first` to `end` exclusive of a stage."""

    stage: int
    first: int
    end: int


def spans(lengths: Sequence[int], chunks: int) -> list[Span]:
    """The parts of the chain in order: the first chunk of every stage, then the second, ...

    A stage's blocks are divided evenly over its chunks, the first ones having one more.

    Args:
        lengths: blocks of every stage.
        chunks: of every stage.
    """
    found: list[Span] = []
    first = 0
    for chunk in range(chunks):
        for stage, length in enumerate(lengths):
            end = first + length // chunks + (chunk < length % chunks)
            found.append(Span(stage, first, end))
            first = end
    return found
