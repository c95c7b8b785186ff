"""Collectives against what NCCL was measured to take (VIA-Research/vTrain, trace/a100; MIT)."""

import pytest

from heliostat.placement.collective_time import GroupLinks, collective_s

MEASURED = [
    (2, 1 << 20, 44e-6), (2, 1 << 24, 132e-6), (2, 1 << 30, 5443e-6),
    (4, 1 << 20, 51e-6), (4, 1 << 24, 180e-6), (4, 1 << 30, 7259e-6),
    (8, 1 << 20, 93e-6), (8, 1 << 26, 580e-6), (8, 1 << 30, 8193e-6),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "num_bytes", "seconds"), MEASURED)
def test_all_reduces_of_a100_inside_a_node(ranks: int, num_bytes: int, seconds: float) -> None:
    group = GroupLinks(size=ranks, inside_bytes_per_s=240e9, inside_latency_s=3.4e-6)
    assert collective_s("all_reduce", num_bytes, group) == pytest.approx(seconds, rel=0.25)


def test_the_slower_level_decides_and_a_tree_saves_steps_over_many_nodes() -> None:
    inside = GroupLinks(size=8, inside_bytes_per_s=240e9, inside_latency_s=3e-6)
    across = inside.model_copy(update={"num_nodes": 2, "across_bytes_per_s": 25e9, "across_latency_s": 14e-6})
    many = across.model_copy(update={"size": 512, "num_nodes": 64})
    assert collective_s("all_reduce", 1e9, across) > 5 * collective_s("all_reduce", 1e9, inside)
    assert collective_s("all_reduce", 8.0, many) < 0.5 * 2 * 64 * 14e-6


def test_nothing_to_send_takes_nothing() -> None:
    assert collective_s("all_reduce", 0.0, GroupLinks(size=8)) == 0.0
    assert collective_s("all_gather", 1e9, GroupLinks()) == 0.0
