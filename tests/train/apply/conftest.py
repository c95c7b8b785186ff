"""Plans on the session's processes."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.task import Task
from tests.train.apply.runs import SETTINGS, Outcome, Train, trained
from tests.train.gloo import together


@pytest.fixture
def train(ranks: ProcessPoolExecutor, tmp_path: Path) -> Train:
    """Train a task on as many gloo processes as the plan has ranks; what they have, all of them, is the first's."""

    def run(task: Task, strategy: Strategy, settings: EngineSettings = SETTINGS) -> Outcome:
        found: list[Outcome] = together(ranks, tmp_path, trained, strategy.num_ranks, task, strategy, settings)
        first, *others = found
        assert all(one.losses == first.losses and one.norms == first.norms for one in others)
        assert all((one.predictions == first.predictions).all() for one in others)
        merged: dict[str, Any] = {}
        for one in (first, *others):
            merged |= one.parameters
        return first._replace(parameters=merged)

    return run
