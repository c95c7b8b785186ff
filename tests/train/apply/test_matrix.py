"""Every plan that the planner can emit trains and predicts like one process."""

import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.profile import profile_module
from tests.placement.space import plan_space
from tests.train.apply.runs import EXACT, SETTINGS, Outcome, Train, alone
from tests.train.apply.tasks import Spelling

GLOBAL_BATCH = 13
"""So that rounds of most sizes leave a smaller one."""
LEAST = 30
CLIPPED = EngineSettings(weight_decay=0.01, clip_norm=0.5)
"""Below the norm of every step."""
BF16 = EngineSettings(weight_decay=0.01, precision="bf16")
BF16_CLOSE = 2e-2
"""Relative; a number of 16 bits has 8 that count, and sums over samples are rounded in another order."""
BF16_EVERY = 10
"""Every how many plans are also run in 16 bits."""
Wanted = dict[EngineSettings, Outcome]
Plans = dict[int, list[Strategy]]
pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def task(toy_data: DatasetVersion) -> Spelling:
    return Spelling(toy_data)


@pytest.fixture(scope="module")
def plans(task: Spelling) -> Plans:
    """For the test's own model, as the planner sees it."""
    rows = tensors_of(task.load("train"))
    workload = profile_module(task.model(), rows, lambda model, batch: task.loss(model, batch)[0])
    return {num_ranks: plan_space(num_ranks, workload, GLOBAL_BATCH) for num_ranks in (2, 4)}


@pytest.fixture(scope="module")
def wanted(task: Spelling) -> Wanted:
    """One process, by how it computes."""
    return {settings: alone(task, GLOBAL_BATCH, settings) for settings in (SETTINGS, CLIPPED, BF16)}


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("schedule", ["none", "gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_plans_train_and_predict_like_one_process(
    train: Train, task: Spelling, wanted: Wanted, plans: Plans, num_ranks: int, schedule: str
) -> None:
    """Every other plan with its gradients clipped."""
    far: dict[Strategy, float] = {}
    for number, strategy in enumerate(plans[num_ranks]):
        if strategy.schedule == schedule:
            settings = (SETTINGS, CLIPPED)[number % 2]
            found = train(task, strategy, settings)[0]
            distance = max(found.distance(wanted[settings]), found.norm_distance(wanted[settings]))
            far |= {strategy: distance} if distance > EXACT else {}
    assert far == {}


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_plans_in_16_bits_stay_close(
    train: Train, task: Spelling, wanted: Wanted, plans: Plans, num_ranks: int
) -> None:
    some = plans[num_ranks][BF16_EVERY // 2 :: BF16_EVERY]
    distances = {strategy: train(task, strategy, BF16)[0].distance(wanted[BF16]) for strategy in some}
    assert {strategy: distance for strategy, distance in distances.items() if distance > BF16_CLOSE} == {}


def test_there_are_many_plans(plans: Plans) -> None:
    assert min(map(len, plans.values())) >= LEAST
