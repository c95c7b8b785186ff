"""The plan space in small has every pair of techniques that a search comes by, and only what can be run."""

from functools import cache
from itertools import combinations

import pytest

from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.plan_file import contradictions
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.search import enumerate_plans
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.roles import training_rounds
from heliostat.train.execution import RUNNABLE, execution_of
from tests.placement.search.cases import A100, V100, Box, cluster, gpt
from tests.placement.space import KINDS, LEAST, Feature, features, plan_space

WORKLOAD = gpt(6, 256)
GLOBAL_BATCH = 13
"""So that rounds of most sizes leave a smaller one."""


@cache
def space(num_ranks: int) -> list[Strategy]:
    return plan_space(num_ranks, WORKLOAD, GLOBAL_BATCH)


def pairs(strategy: Strategy) -> set[tuple[Feature, Feature]]:
    return set(combinations(sorted(features(strategy), key=str), 2))


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_many_plans_that_can_be_run(num_ranks: int) -> None:
    found = space(num_ranks)
    assert len(found) >= LEAST
    assert len(set(found)) == len(found)
    assert found == plan_space(num_ranks, WORKLOAD, GLOBAL_BATCH)
    for strategy in found:
        assert strategy.num_ranks == num_ranks
        assert list(contradictions(WORKLOAD, strategy)) == []
        assert training_rounds(strategy)[-1].spans[-1][-1].end == GLOBAL_BATCH


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_technique_is_there(num_ranks: int) -> None:
    seen = set[Feature]().union(*(features(one) for one in space(num_ranks)))
    values = {name: {str(value) for other, value in seen if other == name} for name, _ in seen}
    assert values["schedule"] == {"none", "gpipe", "1f1b", "interleaved", "zero-bubble"}
    assert values["zero"] >= {"0", "1", "2", "3"}
    assert values["recompute"] == {"none", "selective", "full", "several"}
    assert values["tensor parallel"] >= {"1", "2"}
    assert values["shares"] == values["cuts"] == {"even", "uneven"}
    assert values["last round"] >= {"whole", "smaller"}
    if num_ranks == 4:
        assert {"several", "4"} <= values["data parallel"]
        assert {"several", "4"} <= values["tensor parallel"]
        assert values["last round"] == {"whole", "smaller", "empty"}


def as_there(strategy: Strategy) -> Strategy:
    """The same on devices with the names of the space."""
    names = {A100: KINDS[0], V100: KINDS[1]}
    stages = tuple(
        stage.model_copy(
            update={
                "replicas": tuple(
                    one.model_copy(update={"device_kind": names[one.device_kind]}) for one in stage.replicas
                )
            }
        )
        for stage in strategy.stages
    )
    return strategy.model_copy(update={"stages": stages})


@pytest.mark.parametrize("schedule", [None, "gpipe", "1f1b", "interleaved", "zero-bubble"])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_every_pair_that_a_search_comes_by_is_there(slow: int, schedule: Schedule | None) -> None:
    covered = set[tuple[Feature, Feature]]().union(*map(pairs, space(4)))
    boxes = (Box(A100, 4 - slow), *([Box(V100, slow)] if slow else []))
    pins = Pins.model_validate(RUNNABLE.model_dump() | {"use_all": True, "schedule": schedule})
    wanted = Constraints(global_batch=GLOBAL_BATCH, execution=execution_of(), pins=pins)
    for found in enumerate_plans(WORKLOAD, cluster(boxes), wanted, 60):
        missing = pairs(as_there(found.strategy)) - covered
        assert not missing, found.strategy
