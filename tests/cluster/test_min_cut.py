"""The narrowest place, against every way to cut."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.min_cut import min_cut


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], dict[tuple[int, int], float]]:
    nodes = sorted(draw(st.sets(st.integers(0, 20), min_size=2, max_size=6)))
    edges = draw(st.lists(st.sampled_from(list(combinations(nodes, 2))), unique=True))
    return nodes, {edge: float(draw(st.integers(1, 9))) for edge in edges}


@given(graphs())
def test_no_cut_is_narrower(graph: tuple[list[int], dict[tuple[int, int], float]]) -> None:
    nodes, capacities = graph
    sides = [set(side) for size in range(1, len(nodes)) for side in combinations(nodes, size)]
    cuts = [sum(c for (a, b), c in capacities.items() if (a in side) != (b in side)) for side in sides]
    assert min_cut(nodes, capacities) == min(cuts)
