"""The narrowest place of a graph of links."""

from collections.abc import Mapping, Sequence


def min_cut(nodes: Sequence[int], capacities: Mapping[tuple[int, int], float]) -> float:
    """The least capacity between some of `nodes` and all others (Stoer and Wagner, 1997); 0 if they are not connected.

    Args:
        nodes: at least two.
        capacities: of the undirected edges, each in one order.
    """
    weight = {node: dict.fromkeys(nodes, 0.0) for node in nodes}
    for (a, b), capacity in capacities.items():
        weight[a][b] += capacity
        weight[b][a] += capacity
    left, best = list(nodes), float("inf")
    while len(left) > 1:
        before, last, cut = _phase(left, weight)
        best = min(best, cut)
        for node in left:
            weight[before][node] += weight[last][node]
            weight[node][before] = weight[before][node]
        left.remove(last)
    return best


def _phase(left: Sequence[int], weight: Mapping[int, Mapping[int, float]]) -> tuple[int, int, float]:
    """The two nodes that an ordering by tightest connection ends with, and what joins the last one to the rest."""
    pull = {node: weight[left[0]][node] for node in left[1:]}
    before = last = left[0]
    cut = 0.0
    while pull:
        before, last = last, max(pull, key=lambda node: pull[node])
        cut = pull.pop(last)
        for node in pull:
            pull[node] += weight[last][node]
    return before, last, cut
