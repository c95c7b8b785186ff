"""What models may have, and what goes wrong, under plans."""

import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import PlanError, TrainingFailure, UserError
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.task import Task
from tests.train.apply.runs import EXACT, SETTINGS, Outcome, Train, alone, assembled, plan, stage, trained
from tests.train.apply.tasks import LAYERS, Normalised, Spelling
from tests.train.gloo import together

GLOBAL_BATCH, BLOCKS = 8, LAYERS + 2
PLANS = {
    "uneven": plan(stage(0, BLOCKS, [(5, 2), (3, 1)])),
    "zero 1": plan(stage(0, BLOCKS, [(5, 2), (3, 1)], zero=1)),
    "zero 3": plan(stage(0, BLOCKS, [(5, 2), (3, 1)], zero=3, recompute="full")),
    "tensor": plan(stage(0, BLOCKS, [(8, 3)], tensor_parallel=2)),
    "pipeline": plan(stage(0, 2, [(8, 3)]), stage(2, BLOCKS, [(8, 3)])),
    "zero-bubble": plan(stage(0, 3, [(8, 4)]), stage(3, BLOCKS, [(6, 3), (2, 1)], zero=2), schedule="zero-bubble"),
}


@pytest.mark.dist
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["unused", "frozen"])
def test_parameters_that_do_not_learn(train: Train, toy_data: DatasetVersion, kind: str, name: str) -> None:
    """One that the loss does not reach has a gradient of zero: it only decays. A frozen one stays."""
    task = Spelling(toy_data, kind)
    wanted, found = alone(task, GLOBAL_BATCH), train(task, PLANS[name])
    assert found[0].distance(wanted) < EXACT
    decayed = math.prod([1 - 0.01 * 0.01] * 4)
    if kind == "unused":
        torch.testing.assert_close(assembled(found)["unused"], torch.full((3,), decayed))
    else:
        torch.manual_seed(0)
        assert torch.equal(assembled(found)["norm.weight"], task.model().get_parameter("norm.weight"))


@pytest.mark.dist
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_running_statistics_are_those_of_one_process(
    train: Train, toy_data: DatasetVersion, schedule: str, recompute: str
) -> None:
    """Of one with the same micro-batches: that is what batch normalisation sees. Recomputing leaves them alone."""
    task = Normalised(toy_data)
    wanted = trained(0, task, plan(stage(0, 1, [(8, 4)])))
    stages = (stage(0, 2, [(8, 4)], recompute=recompute), stage(2, BLOCKS, [(8, 4)], recompute=recompute))
    found = train(task, plan(*stages, schedule=schedule))
    assert found[0].distance(wanted) < EXACT
    own, right = assembled(found), assembled([wanted])
    assert {name for name in own if "running" in name} == {
        f"layers.{layer}.norm.running_{kind}" for layer in range(LAYERS) for kind in ("mean", "var")
    }
    for name, one in own.items():
        torch.testing.assert_close(one, right[name], rtol=1e-4, atol=1e-6)


@pytest.mark.dist
def test_processes_play_any_role(ranks: ProcessPoolExecutor, toy_data: DatasetVersion, tmp_path: Path) -> None:
    task, strategy = Spelling(toy_data), PLANS["zero-bubble"]
    found = together(ranks, tmp_path, in_another_order, strategy.num_ranks, task, strategy)
    wanted = alone(task, GLOBAL_BATCH)
    assert all(losses == pytest.approx(wanted.losses[:2], rel=EXACT) for losses in found)


def in_another_order(_: int, task: Task, strategy: Strategy) -> list[float]:
    torch.manual_seed(0)
    rows = tensors_of(task.load("train"))
    engine = Engine(task, strategy, example=rows, order=(2, 0, 1), settings=SETTINGS)
    found = []
    for number in range(2):
        order = torch.randperm(len(rows["label"]), generator=torch.Generator().manual_seed(number))
        found.append(engine.step(rows, order[:GLOBAL_BATCH], number=number + 1, learning_rate=0.01).loss)
    return found


@pytest.mark.dist
@pytest.mark.parametrize("name", PLANS)
def test_a_loss_that_is_not_finite_names_its_block(
    ranks: ProcessPoolExecutor, toy_data: DatasetVersion, tmp_path: Path, name: str
) -> None:
    """On all ranks alike, with nothing changed: the step can be taken back."""
    for told in together(ranks, tmp_path, failure, PLANS[name].num_ranks, Spelling(toy_data, "nan"), PLANS[name]):
        assert told == "step 7, block layers.2"


def failure(_: int, task: Task, strategy: Strategy) -> str | None:
    """Where one rank says that the loss of a step is not finite; the parameters must be as they were."""
    torch.manual_seed(0)
    rows = tensors_of(task.load("train"))
    engine = Engine(task, strategy, example=rows)
    before = {name: [piece.values.clone() for piece in one.pieces] for name, one in engine.model_held().items()}
    with pytest.raises(TrainingFailure, match="the loss is not a finite number") as told:
        engine.step(rows, torch.arange(GLOBAL_BATCH), number=7, learning_rate=0.1)
    for name, one in engine.model_held().items():
        assert all(torch.equal(piece.values, old) for piece, old in zip(one.pieces, before[name], strict=True))
    return told.value.where


# what torch.compile warns of is its own doing
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
@pytest.mark.dist
def test_compiled_blocks_train_alike(toy_data: DatasetVersion) -> None:
    task = Spelling(toy_data)
    settings = EngineSettings(weight_decay=0.01, compiles=True)
    found: Outcome = trained(0, task, plan(stage(0, BLOCKS, [(8, 4)], recompute="full")), settings)
    assert found.distance(alone(task, GLOBAL_BATCH)) < EXACT


@pytest.mark.dist
def test_a_plan_for_another_model_is_refused(train: Train, toy_data: DatasetVersion) -> None:
    with pytest.raises(PlanError, match=r"model of 7 blocks(.|\n)*Letters with 6: .*layers.3(.|\n)*plan again"):
        train(Spelling(toy_data), plan(stage(0, 3, [(8, 4)]), stage(3, BLOCKS + 1, [(8, 4)])))


def test_a_plan_for_more_processes_is_refused(toy_data: DatasetVersion) -> None:
    with pytest.raises(PlanError, match=r"for 2 ranks(.|\n)*1 processes"):
        trained(0, Spelling(toy_data), PLANS["uneven"])


def test_a_model_without_parameters_to_train_is_refused(toy_data: DatasetVersion) -> None:
    with pytest.raises(UserError, match="Spelling has no trainable parameter"):
        alone(Spelling(toy_data, "all frozen"), GLOBAL_BATCH)
