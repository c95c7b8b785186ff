"""Pipeline schedules against closed forms, and against an independent event check."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.placement.schedule import Schedule, StageTimes, closed_form_s, order, simulate

EQUAL = StageTimes(forward_s=1.0, backward_s=2.0)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "micro"), [(1, 3), (2, 1), (4, 8), (4, 2), (7, 5), (8, 32)])
def test_equal_stages_take_the_closed_form(schedule: Schedule, stages: int, micro: int) -> None:
    line = simulate(schedule, [[EQUAL]] * stages, micro)
    assert line.total_s == pytest.approx((micro + stages - 1) * 3.0)
    assert closed_form_s([EQUAL] * stages, micro) == pytest.approx(line.total_s)


def test_activations_in_flight() -> None:
    assert simulate("gpipe", [[EQUAL]] * 4, 8).in_flight == (8, 8, 8, 8)
    assert simulate("1f1b", [[EQUAL]] * 4, 8).in_flight == (4, 3, 2, 1)
    assert simulate("1f1b", [[EQUAL]] * 4, 2).in_flight == (2, 2, 2, 1)


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize(("stages", "micro"), [(2, 2), (4, 4), (4, 8), (4, 16), (8, 8), (6, 18)])
def test_interleaving_divides_the_bubble(chunks: int, stages: int, micro: int) -> None:
    part = StageTimes(forward_s=1 / chunks, backward_s=2 / chunks)
    line = simulate("interleaved", [[part] * chunks] * stages, micro)
    assert line.total_s == pytest.approx(micro * 3.0 + (stages - 1) * 3.0 / chunks)


@pytest.mark.parametrize(("stages", "micro"), [(2, 2), (4, 4), (4, 9), (8, 16)])
def test_zero_bubble_fills_the_end_with_weight_passes(stages: int, micro: int) -> None:
    """Qi et al. 2024, table 2: the bubble of ZB-H1 is (p - 1)(f + b - w)."""
    line = simulate("zero-bubble", [[StageTimes(1.0, 1.0, 1.0)]] * stages, micro)
    assert line.total_s == pytest.approx(3.0 * micro + (stages - 1))
    assert max(line.in_flight) == stages


times = st.floats(0.01, 10.0)
stage_times = st.builds(StageTimes, times, times, times, st.floats(0, 1), st.floats(0, 1))
schedules: st.SearchStrategy[Schedule] = st.sampled_from(("gpipe", "1f1b", "zero-bubble"))


@settings(max_examples=60, deadline=None)
@given(schedule=schedules, stages=st.lists(stage_times, min_size=1, max_size=5), micro=st.integers(1, 9))
def test_passes_respect_their_inputs_and_never_overlap(
    schedule: Schedule, stages: list[StageTimes], micro: int
) -> None:
    line = simulate(schedule, [[one] for one in stages], micro, keep=True)
    ended = {(one.kind, one.stage, one.micro_batch): one.end_s for one in line.passes}
    assert len(ended) == len(line.passes) == micro * len(stages) * (3 if schedule == "zero-bubble" else 2)
    for one in line.passes:
        if one.kind == "F" and one.stage > 0:
            sent = ended["F", one.stage - 1, one.micro_batch] + stages[one.stage - 1].send_forward_s
        elif one.kind == "B" and one.stage + 1 < len(stages):
            sent = ended["B", one.stage + 1, one.micro_batch] + stages[one.stage + 1].send_backward_s
        elif one.kind != "F":
            sent = ended["F" if one.kind == "B" else "B", one.stage, one.micro_batch]
        else:
            sent = 0.0
        assert one.start_s >= sent - 1e-9
    for stage in range(len(stages)):
        own = sorted((one for one in line.passes if one.stage == stage), key=lambda one: one.start_s)
        assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(own))
    assert line.total_s == pytest.approx(max(one.end_s for one in line.passes))


@settings(max_examples=60, deadline=None)
@given(stages=st.lists(stage_times, min_size=1, max_size=6), micro=st.integers(1, 12), factor=st.floats(1.0, 3.0))
def test_scaling_all_stages_scales_the_step(stages: list[StageTimes], micro: int, factor: float) -> None:
    line = simulate("1f1b", [[one] for one in stages], micro)
    slower = [StageTimes(*(factor * value for value in one)) for one in stages]
    assert simulate("1f1b", [[one] for one in slower], micro).total_s == pytest.approx(factor * line.total_s)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_every_pass_is_in_the_order_once(schedule: Schedule) -> None:
    chunks = 2 if schedule == "interleaved" else 1
    for stage in range(4):
        steps = order(schedule, stage, 4, 8, chunks)
        assert len(set(steps)) == len(steps) == 8 * chunks * (3 if schedule == "zero-bubble" else 2)
