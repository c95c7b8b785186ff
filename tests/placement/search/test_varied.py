"""The choice that leaves no sort out."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat.placement.search.varied import varied


def test_most_are_the_best_and_each_sort_is_there() -> None:
    ranked = ["a1", "a2", "a3", "a4", "a5", "a6", "b1", "a7", "c1", "b2"]
    assert varied(ranked, 7, lambda one: one[0]) == ["a1", "a2", "a3", "a4", "a5", "a6", "b1"]
    assert varied(ranked[3:], 6, lambda one: one[0]) == ["a4", "a5", "a6", "b1", "a7", "c1"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers()), unique=True), st.integers(1, 12))
def test_so_many_are_kept_in_their_order_and_the_best_is_among_them(ranked: list[tuple[int, int]], most: int) -> None:
    chosen = varied(ranked, most, lambda one: one[0])
    assert len(chosen) == min(most, len(ranked))
    assert chosen == [one for one in ranked if one in chosen]
    assert chosen[:1] == ranked[:1]
