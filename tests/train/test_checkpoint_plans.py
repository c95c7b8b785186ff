"""Trained and saved under one plan, trained on under any other: the loss curve is that of one undisturbed process."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heliostat.data.versions import DatasetVersion
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.train import checkpoint
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.checkpointer import Checkpointer, Retention
from tests.train.apply.tasks import TOKENS, VOCABULARY, Spelling
from tests.train.gloo import together

GLOBAL_BATCH = 8
SAVED, END = 3, 6
"""Steps before the save, and in all."""
RELATIVE = 1e-5


def stage(first: int, end: int, samples: Sequence[int], **how: Any) -> StageStrategy:
    micro_batch = 4 if len(samples) == 1 else 2
    replicas = tuple(ReplicaShare(device_kind="cpu", num_samples=n, micro_batch=micro_batch) for n in samples)
    return StageStrategy(first_block=first, end_block=end, replicas=replicas, **how)


def plan(*stages: StageStrategy) -> Strategy:
    return Strategy(global_batch=GLOBAL_BATCH, stages=stages, schedule="1f1b" if len(stages) > 1 else "none")


ONE = plan(stage(0, 6, [8]))
PLANS = {
    "uneven, ZeRO 1": plan(stage(0, 6, [5, 3], zero=1)),
    "uneven, ZeRO 3": plan(stage(0, 6, [4, 3, 1], zero=3)),
    "tensor, ZeRO 3": plan(stage(0, 6, [4, 4], tensor_parallel=2, zero=3)),
    "pipeline 1 + 2": plan(stage(0, 2, [8]), stage(2, 6, [4, 4], zero=3)),
    "pipeline, tensor 2 + 2": plan(stage(0, 3, [8], tensor_parallel=2), stage(3, 6, [4, 4], zero=1)),
}


def data() -> dict[str, Tensor]:
    letters = torch.randint(VOCABULARY, (40, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    return {"letters": letters[:, :-1].contiguous(), "label": letters[:, 1:].contiguous()}


def engine_of(strategy: Strategy, version: DatasetVersion) -> Engine:
    torch.manual_seed(3)
    return Engine(Spelling(version), strategy, example=data(), settings=EngineSettings(weight_decay=0.1))


def losses(engine: Engine, first: int, end: int) -> list[float]:
    rows = torch.arange(GLOBAL_BATCH)
    steps = range(first, end)
    return [engine.step(data(), rows + 8 * (step % 5), number=step + 1, learning_rate=0.01).loss for step in steps]


def states_of(engine: Engine) -> dict[str, Any]:
    return {checkpoint.MODEL: engine.model_held(), checkpoint.OPTIMIZER: engine.optimizer_held()}


def save(rank: int, strategy: Strategy, version: DatasetVersion, directory: Path) -> None:
    """Train and save; the steps that go on meanwhile are not to be seen in what is saved."""
    engine = engine_of(strategy, version)
    tied = {"head.weight": "embed.weight"}
    with Checkpointer(directory, identity={}, tied=tied, retention=Retention(1, "loss", "min")) as saver:
        losses(engine, 0, SAVED)
        saver.save(SAVED, states_of(engine), {})
        losses(engine, SAVED, SAVED + 1)


def resume(rank: int, strategy: Strategy, version: DatasetVersion, paths: Sequence[Path]) -> list[list[float]]:
    """The losses of the steps after each of the checkpoints."""
    engine, found = engine_of(strategy, version), []
    for path in paths:
        engine.restored(checkpoint.read(path, states_of(engine)).step)
        found.append(losses(engine, SAVED, END))
    return found


@pytest.fixture(scope="module")
def saved(ranks: ProcessPoolExecutor, toy_data: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint of every plan."""
    folder = tmp_path_factory.mktemp("saved")
    for name, strategy in PLANS.items():
        together(ranks, folder, save, strategy.num_ranks, strategy, toy_data, folder / name)
    return [folder / name / f"step-{SAVED:08d}" for name in PLANS]


@pytest.fixture(scope="module")
def undisturbed(toy_data: DatasetVersion) -> list[float]:
    return losses(engine_of(ONE, toy_data), 0, END)[SAVED:]


@pytest.mark.dist
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_goes_on_from_what_any_plan_has_saved(
    ranks: ProcessPoolExecutor,
    toy_data: DatasetVersion,
    tmp_path: Path,
    saved: list[Path],
    undisturbed: list[float],
    name: str,
) -> None:
    found = together(ranks, tmp_path, resume, PLANS[name].num_ranks, PLANS[name], toy_data, saved)
    for curves in found:
        assert curves == [pytest.approx(undisturbed, rel=RELATIVE)] * len(saved)


@pytest.mark.dist
def test_one_process_serves_and_goes_on_from_what_any_plan_has_saved(
    toy_data: DatasetVersion, saved: list[Path], undisturbed: list[float]
) -> None:
    assert resume(0, ONE, toy_data, saved) == [pytest.approx(undisturbed, rel=RELATIVE)] * len(saved)
    model, rows = Spelling(toy_data).model(), slice(8 * SAVED, 8 * SAVED + GLOBAL_BATCH)
    for path in saved:
        checkpoint.load_into(model, path)
        assert model.get_parameter("head.weight") is model.get_parameter("embed.weight")
        loss, count = Spelling(toy_data).loss(model, {name: one[rows] for name, one in data().items()})
        assert loss.item() / count == pytest.approx(undisturbed[0], rel=RELATIVE)
