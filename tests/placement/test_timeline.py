"""The timeline is the step that was predicted, pass by pass."""

from itertools import pairwise

import pytest

from heliostat.placement.prediction import predict
from heliostat.placement.strategy import Strategy
from heliostat.placement.timeline import timeline
from tests.placement.view.plans import CLUSTER, JOB, strategy, uneven

SPLITS = [
    strategy(),
    strategy(schedule="gpipe", zero=1),
    strategy(schedule="zero-bubble"),
    strategy(schedule="interleaved", chunks=2),
    uneven(),
]


@pytest.mark.parametrize("split", SPLITS)
def test_it_is_the_predicted_step(split: Strategy) -> None:
    step = timeline(JOB.workload, CLUSTER, split)
    told = predict(JOB.workload, CLUSTER, split)
    assert step.step_s == told.step_time_s
    tails = [sync + update for sync, update in zip(step.sync_s, step.optimizer_s, strict=True)]
    assert step.pipeline_s + max(tails) == pytest.approx(step.step_s)
    kinds = 3 if split.schedule == "zero-bubble" else 2
    assert len(step.passes) == kinds * split.chunks * split.num_micro_batches * len(split.stages)


@pytest.mark.parametrize("split", SPLITS)
def test_a_stage_does_one_thing_at_a_time(split: Strategy) -> None:
    step = timeline(JOB.workload, CLUSTER, split)
    for number in range(len(split.stages)):
        mine = sorted((one.start_s, one.end_s) for one in step.passes if one.stage == number)
        assert all(first[1] <= second[0] + 1e-12 for first, second in pairwise(mine))
        assert mine[-1][1] <= step.pipeline_s
