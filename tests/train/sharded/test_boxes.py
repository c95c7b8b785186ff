from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.train.sharded.boxes import Box, disjoint, without


@st.composite
def divisions(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A tensor, and the boxes of several ways to divide it along one dimension."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    boxes: list[Box] = []
    for _ in range(draw(st.integers(1, 4))):
        dim = draw(st.integers(0, len(shape) - 1))
        cuts = draw(st.sets(st.integers(0, shape[dim])))
        for begin, end in pairwise(sorted({0, *cuts, shape[dim]})):
            low, high = [0] * len(shape), list(shape)
            low[dim], high[dim] = begin, end
            boxes.append(Box(tuple(low), tuple(high)))
    return shape, boxes


def filled(shape: tuple[int, ...], boxes: list[Box]) -> np.ndarray:
    """How many of the boxes every element is in."""
    count = np.zeros(shape, dtype=int)
    for box in boxes:
        count[tuple(slice(*edges) for edges in zip(*box, strict=True))] += 1
    return count


@given(divisions())
def test_a_tensor_is_covered_once_by_parts_of_what_is_held(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, boxes = case
    found = disjoint(boxes, shape)
    assert (filled(shape, [part for part, _ in found]) == 1).all()
    for part, source in found:
        assert source in boxes
        assert (filled(shape, [part]) <= filled(shape, [source])).all()


def test_one_division_stays_as_it_is() -> None:
    halves = [Box((0, 0), (2, 3)), Box((2, 0), (4, 3))]
    assert disjoint([*halves, *halves], (4, 3)) == [(half, half) for half in halves]


def test_a_number_and_an_empty_tensor_are_one_box() -> None:
    number, empty = Box((), ()), Box((0, 0), (0, 3))
    assert disjoint([number, number], ()) == [(number, number)]
    assert disjoint([empty, empty], (0, 3)) == [(empty, empty)]
    assert list(without(number, number)) == []


def test_a_hole_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="nobody holds"):
        disjoint([Box((0,), (2,)), Box((1,), (3,))], (4,))
