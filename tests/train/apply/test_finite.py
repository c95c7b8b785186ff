"""A loss may be a number and its gradients not; every rank then stops in the same step."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import Engine
from heliostat.train.evaluate import tensors_of
from heliostat.train.task import Task
from tests.train.apply.runs import plan, stage
from tests.train.apply.tasks import LAYERS, Spelling
from tests.train.gloo import together

BLOCKS = LAYERS + 2
PLANS = {
    "uneven": plan(stage(0, BLOCKS, [(5, 2), (3, 1)])),
    "pipeline": plan(stage(0, 4, [(8, 3)]), stage(4, BLOCKS, [(8, 3)])),
    "zero": plan(stage(0, BLOCKS, [(5, 2), (3, 1)], zero=3)),
}


@pytest.mark.dist
@pytest.mark.parametrize("name", PLANS)
def test_a_gradient_that_is_not_finite_names_its_parameters(
    ranks: ProcessPoolExecutor, toy_data: DatasetVersion, tmp_path: Path, name: str
) -> None:
    first, second = together(ranks, tmp_path, failure, 2, Spelling(toy_data, "steep"), PLANS[name])
    assert first == second
    assert first.startswith("the gradient is not a finite number\n  where: step 3\n  got: loss 11.272")
    assert "gradients of places, embed.weight" in first


def failure(_: int, task: Task, strategy: Strategy) -> str:
    torch.manual_seed(0)
    rows = tensors_of(task.load("train"))
    engine = Engine(task, strategy, example=rows)
    with pytest.raises(TrainingFailure) as told:
        engine.step(rows, torch.arange(8), number=3, learning_rate=0.1)
    return str(told.value)
