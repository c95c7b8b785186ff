"""Plans on the session's processes."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.task import Task
from tests.train.apply.runs import SETTINGS, Outcome, Train, trained
from tests.train.gloo import together


@pytest.fixture
def train(ranks: ProcessPoolExecutor, tmp_path: Path) -> Train:
    """Train a task on as many gloo processes as the plan has ranks; what they get is the same on all of them."""

    def run(task: Task, strategy: Strategy, settings: EngineSettings = SETTINGS) -> list[Outcome]:
        found: list[Outcome] = together(ranks, tmp_path, trained, strategy.num_ranks, task, strategy, settings)
        assert all(one.losses == found[0].losses and one.norms == found[0].norms for one in found)
        assert all((one.predictions == found[0].predictions).all() for one in found)
        return found

    return run
