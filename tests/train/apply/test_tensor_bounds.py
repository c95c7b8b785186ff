"""Where divided axes end up."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat.train.apply.tensor_bounds import Place, even, length, range_of, reshaped, scaled, spans, widths


def test_every_rank_gets_its_share_of_every_group() -> None:
    bounds = even((32, 16, 16), 4, 3)
    assert bounds == ((0, 16, 24, 32), (0, 8, 12, 16), (0, 8, 12, 16))
    assert [spans(bounds, rank) for rank in range(3)] == [
        ((0, 16), (32, 40), (48, 56)),
        ((16, 24), (40, 44), (56, 60)),
        ((24, 32), (44, 48), (60, 64)),
    ]
    assert widths(bounds) == (32, 16, 16)


def test_neighbouring_spans_are_one_and_none_is_empty() -> None:
    assert spans(((0, 0, 2), (0, 2, 2)), 0) == ((2, 4),)
    assert spans(((0, 2, 2), (0, 2, 2)), 0) == ((0, 4),)
    assert spans(((0, 2, 2), (0, 2, 2)), 1) == ((0, 0),)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 7), st.integers(1, 5))
def test_spans_of_all_ranks_are_the_axis(sizes: list[int], units: int, num_ranks: int) -> None:
    bounds = even(tuple(size * units for size in sizes), units, num_ranks)
    places = [place for rank in range(num_ranks) for begin, end in spans(bounds, rank) for place in range(begin, end)]
    assert sorted(places) == list(range(length(bounds)))
    assert max(widths(bounds)) - min(widths(bounds)) <= sum(sizes)


def test_views_that_keep_the_division() -> None:
    columns = Place(2, even((32,), 4, 2))
    heads = Place(2, even((4,), 4, 2))
    assert reshaped((3, 5, 32), columns, (3, 5, 4, 8)) == heads
    assert reshaped((3, 5, 4, 8), heads, (3, 5, 32)) == columns
    assert reshaped((3, 5, 32), columns, (15, 32)) == Place(1, columns.bounds)
    assert reshaped((3, 5, 32), columns, (3, 5, 1, 32)) == Place(3, columns.bounds)


def test_views_that_make_groups_and_take_them_apart() -> None:
    three = even((32, 32, 32), 4, 2)
    one = Place(3, even((4,), 4, 2))
    assert reshaped((5, 6, 96), Place(2, three), (5, 6, 3, 4, 8)) == one
    # heads below the batch: as many groups as samples
    joined = Place(0, even((4,) * 5, 4, 2))
    assert reshaped((5, 4, 6, 8), Place(1, even((4,), 4, 2)), (20, 6, 8)) == joined
    assert reshaped((20, 6, 8), joined, (5, 4, 6, 8)) == Place(1, even((4,), 4, 2))


def test_views_that_no_single_axis_keeps() -> None:
    assert reshaped((5, 32), Place(1, even((32,), 4, 2)), (5, 8, 4)) == Place(1, even((8,), 4, 2))
    assert reshaped((5, 6), Place(1, ((0, 3, 6),)), (5, 3, 2)) is None
    assert reshaped((5, 96), Place(1, even((96,), 2, 2)), (5, 3, 32)) is None


def test_ranges_of_groups() -> None:
    bounds = even((32, 16, 16), 4, 2)
    assert range_of(bounds, 0, 32) == (bounds[:1], 0)
    assert range_of(bounds, 32, 32) == (bounds[1:], 1)
    assert range_of(bounds, 0, 40) is None
    assert range_of(bounds, 8, 24) is None
    assert range_of(bounds, 0, 80) is None


def test_repeated_places() -> None:
    assert scaled(((0, 1, 3),), 2) == ((0, 2, 6),)
