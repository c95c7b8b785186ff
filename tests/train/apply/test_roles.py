"""Who does what under a plan."""

import pytest

from heliostat.errors import PlanError
from heliostat.train.apply.roles import Interval, Role, forward_rounds, roles, training_rounds
from tests.train.apply.runs import plan, stage

PLAN = plan(stage(0, 1, [(7, 3)]), stage(1, 2, [(5, 2), (2, 1)], tensor_parallel=2))


def test_ranks_go_stage_by_stage_replica_by_replica() -> None:
    assert roles(PLAN) == (Role(0, 0, 0), Role(1, 0, 0), Role(1, 0, 1), Role(1, 1, 0), Role(1, 1, 1))


def test_in_every_round_all_stages_have_the_same_samples() -> None:
    spans = [one.spans for one in training_rounds(PLAN)]
    assert spans == [
        ((Interval(0, 3),), (Interval(0, 2), Interval(2, 3))),
        ((Interval(3, 6),), (Interval(3, 5), Interval(5, 6))),
        ((Interval(6, 7),), (Interval(6, 7), Interval(7, 7))),
    ]


def test_stages_that_do_not_agree_are_refused() -> None:
    with pytest.raises(PlanError, match="in round 1"):
        training_rounds(plan(stage(0, 1, [(8, 4)]), stage(1, 2, [(5, 3), (3, 1)])))


@pytest.mark.parametrize("num_samples", [1, 3, 7, 8])
def test_forward_rounds_have_every_sample_once(num_samples: int) -> None:
    for stage_number in range(2):
        spans = [span for one in forward_rounds(PLAN, num_samples) for span in one.spans[stage_number]]
        assert [sample for span in spans for sample in range(*span)] == list(range(num_samples))


def test_intervals_overlap_in_what_both_have() -> None:
    assert Interval(2, 6).overlap(Interval(4, 9)) == Interval(4, 6)
    assert Interval(2, 4).overlap(Interval(6, 9)).size == 0
