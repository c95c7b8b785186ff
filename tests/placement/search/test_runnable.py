"""Every plan that the search can emit is one that the executor can run: rounds, cuts, chunks, schedules."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.plan_file import contradictions
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.check import check
from heliostat.placement.search.draft import strategy_of
from heliostat.placement.search.engine import Search
from heliostat.placement.spans import spans
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.train.apply.roles import roles, training_rounds
from heliostat.train.execution import RUNNABLE
from tests.placement.search.cases import A100, V100, Box, Case, cases, cluster, gpt

FEW = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SCHEDULES: tuple[Schedule | None, ...] = (None, "gpipe", "1f1b", "interleaved", "zero-bubble")
MANY = 300


def closed(workload: WorkloadProfile, places: set[int]) -> WorkloadProfile:
    """The same chain where no stage begins with the blocks at `places`."""
    blocks = [block for block in workload.blocks for _ in range(block.count)]
    return workload.model_copy(
        update={
            "blocks": tuple(
                block.model_copy(update={"count": 1, "opens_stage": place not in places})
                for place, block in enumerate(blocks)
            )
        }
    )


def emitted(workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints) -> Iterator[Strategy]:
    """Whatever a search judged and found to fit, the best first."""
    check(workload, cluster, wanted)
    search = Search(workload, cluster, wanted)
    for verdict in search.run()[:MANY]:
        strategy = strategy_of(verdict.draft, search.space.ground.kinds, wanted.global_batch, wanted.execution)
        yield Strategy.model_validate(strategy.model_dump())


def check_runnable(workload: WorkloadProfile, strategy: Strategy, pins: Pins) -> None:
    assert list(contradictions(workload, strategy)) == []
    assert strategy.num_ranks == len(roles(strategy))
    rounds = training_rounds(strategy)
    assert len(rounds) == strategy.num_micro_batches
    assert rounds[-1].spans[0][-1].end == strategy.global_batch
    parts = spans([stage.end_block - stage.first_block for stage in strategy.stages], strategy.chunks)
    assert [part.first for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == workload.num_blocks
    assert all(part.end > part.first for part in parts)
    assert {part.first for part in parts} <= {0, *workload.cuts}
    if strategy.schedule == "interleaved":
        assert strategy.chunks > 1
        assert len(rounds) % len(strategy.stages) == 0
    for stage in strategy.stages:
        assert strategy.schedule != "zero-bubble" or stage.zero < 2 or len(stage.replicas) == 1
        if stage.zero >= 2:
            assert len({one.num_micro_batches for one in stage.replicas}) <= 2, "they go through the rounds together"
        assert pins.offload in {None, stage.offload}
        assert not stage.sequence_parallel or (stage.tensor_parallel > 1 and pins.sequence_parallel is not False)
        assert stage.context_parallel == 1


@FEW
@given(cases, st.sampled_from(SCHEDULES), st.sets(st.integers(1, 4)), st.sampled_from([7, 8, 11, 12]))
def test_every_plan_of_a_small_question_can_be_run(
    case: Case, schedule: Schedule | None, places: set[int], global_batch: int
) -> None:
    workload = closed(case.workload, places)
    pins = RUNNABLE.model_copy(update={"schedule": schedule})
    try:
        for strategy in emitted(workload, case.cluster, Constraints(global_batch=global_batch, pins=pins)):
            check_runnable(workload, strategy, pins)
    except PlanError:
        return


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_plan_of_a_larger_question_can_be_run(schedule: Schedule | None) -> None:
    boxes = (Box(A100, 8), Box(V100, 4), Box(V100, 8))
    workload = closed(gpt(12, 2048), {2, 3, 7, 11})
    pins = RUNNABLE.model_copy(update={"schedule": schedule})
    for strategy in emitted(workload, cluster(boxes), Constraints(global_batch=50, pins=pins)):
        check_runnable(workload, strategy, pins)


def test_a_model_that_cannot_be_cut_has_one_stage() -> None:
    workload = closed(gpt(3, 2048), {1, 2, 3, 4})
    for strategy in emitted(workload, cluster((Box(A100, 4),)), Constraints(global_batch=8)):
        assert len(strategy.stages) == 1
    with pytest.raises(PlanError, match="2 stages, but the model can be cut at no places alone"):
        check(workload, cluster((Box(A100, 4),)), Constraints(global_batch=8, pins=Pins(num_stages=2)))
