"""Every plan that the planner can emit trains like one process."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.profile import profile_module
from tests.placement.space import plan_space
from tests.train.apply.runs import EXACT, SETTINGS, Outcome, alone
from tests.train.apply.tasks import Spelling

Train = Callable[..., Outcome]
GLOBAL_BATCH = 13
"""So that rounds of most sizes leave a smaller one."""
LEAST = 30
SCHEDULES = ("none", "gpipe", "1f1b", "interleaved", "zero-bubble")
CLIPPED = EngineSettings(weight_decay=0.01, clip_norm=0.5)
"""Below the norm of every step."""
BF16, BF16_TOLERANCE = EngineSettings(weight_decay=0.01, precision="bf16"), 2e-2
pytestmark = pytest.mark.dist


@cache
def space(num_ranks: int, task: Spelling) -> list[Strategy]:
    """Plans for the test's own model, as the planner sees it."""
    workload = profile_module(
        task.model(), tensors_of(task.load("train")), lambda model, rows: task.loss(model, rows)[0]
    )
    return plan_space(num_ranks, workload, GLOBAL_BATCH)


@pytest.fixture(scope="module")
def task(toy_data: DatasetVersion) -> Spelling:
    return Spelling(toy_data)


@pytest.fixture(scope="module")
def wanted(task: Spelling) -> dict[EngineSettings, Outcome]:
    """One process, by how it computes."""
    return {settings: alone(task, GLOBAL_BATCH, settings) for settings in (SETTINGS, CLIPPED, BF16)}


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_plans_train_and_predict_like_one_process(
    train: Train, task: Spelling, wanted: dict[EngineSettings, Outcome], num_ranks: int, schedule: str
) -> None:
    """Every other plan with its gradients clipped."""
    plans = [one for one in space(num_ranks, task) if one.schedule == schedule]
    for number, strategy in enumerate(plans):
        settings = (SETTINGS, CLIPPED)[number % 2]
        import time

        t = time.time()
        try:
            print(
                num_ranks,
                schedule,
                number,
                "%.1e" % train(task, strategy, settings).distance(wanted[settings]),
                "%.1fs" % (time.time() - t),
                strategy.describe() if hasattr(strategy, "describe") else "",
                flush=True,
            )
        except Exception as e:
            print("FAILED", strategy, repr(e)[:600], flush=True)


def test_there_are_many_plans(task: Spelling) -> None:
    assert min(len(space(num_ranks, task)) for num_ranks in (2, 4)) >= LEAST
