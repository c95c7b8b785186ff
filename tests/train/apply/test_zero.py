"""ZeRO leaves every rank with a part of the parameters, of what AdamW keeps, and of the gradients."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.placement.strategy import Zero
from heliostat.train.apply.engine import Engine
from heliostat.train.evaluate import tensors_of
from heliostat.train.task import Task
from tests.train.apply.runs import plan, stage
from tests.train.apply.tasks import LAYERS, Spelling
from tests.train.gloo import together

RANKS = 4


class Sizes(NamedTuple):
    """Elements of the layers that one rank holds."""

    built: int
    moments: int
    trained: int
    predicted: int


@pytest.mark.dist
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_rank_holds_its_part(
    ranks: ProcessPoolExecutor, toy_data: DatasetVersion, tmp_path: Path, zero: Zero
) -> None:
    """Between steps, whatever was whole in them; after predictions too."""
    task = Spelling(toy_data)
    total = sum(one.numel() for one in task.model().get_submodule("layers").parameters())
    for sizes in together(ranks, tmp_path, held, RANKS, task, zero):
        assert sizes == (total // RANKS, 2 * total // RANKS, total // RANKS, total // RANKS)


def held(_: int, task: Task, zero: Zero) -> Sizes:
    torch.manual_seed(0)
    rows = tensors_of(task.load("train"))
    strategy = plan(stage(0, LAYERS + 2, [(3, 2), (2, 2), (2, 1), (1, 1)], zero=zero))
    engine = Engine(task, strategy, example=rows)

    def size() -> int:
        own = (one for name, one in engine.model_held().items() if name.startswith("layers"))
        return sum(piece.values.numel() for one in own for piece in one.pieces)

    built = size()
    moments = [one for name, one in engine.optimizer_held().items() if name.startswith("layers")]
    engine.step(rows, torch.arange(8), number=1, learning_rate=0.01)
    trained = size()
    engine.predict(rows)
    return Sizes(built, sum(piece.values.numel() for one in moments for piece in one.pieces), trained, size())
