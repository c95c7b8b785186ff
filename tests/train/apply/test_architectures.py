"""Models that others wrote train under plans like on one process."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import PlanError
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.look import cuts_of
from heliostat.train.evaluate import tensors_of
from tests.train.apply.families import MADE, Family
from tests.train.apply.runs import EXACT, Train, alone, plan, stage

pytestmark = pytest.mark.dist
GLOBAL_BATCH = 8
SIZES = {"ResNet": 5, "T5ForConditionalGeneration": 9}
"""Blocks of the models that do not have four."""
CUTS = {"ResNet": (1, 2, 3, 4), "T5ForConditionalGeneration": (1, 4, 8)}
"""Where stages may begin, if not everywhere: a T5's layers all use a bias of the first one, and it has no batch."""
DIVIDED = tuple(MADE)
"""Tensor parallelism has something to divide in them."""

Make = Callable[[int, tuple[int, ...]], Strategy]


def uneven(size: int, _: tuple[int, ...]) -> Strategy:
    return plan(stage(0, size, [(5, 2), (3, 3)]))


def tensor(size: int, _: tuple[int, ...]) -> Strategy:
    return plan(stage(0, size, [(8, 4)], tensor_parallel=2))


def pipeline(size: int, cuts: tuple[int, ...]) -> Strategy:
    cut = cuts[len(cuts) // 2]
    return plan(stage(0, cut, [(8, 3)]), stage(cut, size, [(8, 3)]))


def mixed(size: int, cuts: tuple[int, ...]) -> Strategy:
    """Stages of different width, one of them sharded and one recomputed."""
    cut = cuts[len(cuts) // 2]
    return plan(stage(0, cut, [(8, 4)], recompute="full"), stage(cut, size, [(6, 3), (2, 1)], zero=3))


def every_cut(size: int, cuts: tuple[int, ...]) -> Strategy:
    """A stage for every part of the model that can be one; at most four."""
    edges = [0, *cuts[-3:], size]
    return plan(*(stage(first, end, [(8, 3)]) for first, end in pairwise(edges)))


@pytest.mark.parametrize("kind", ["ResNet", *MADE])
def test_an_architecture_trains_like_one_process(train: Train, toy_data: DatasetVersion, kind: str) -> None:
    task = Family(toy_data, kind)
    wanted = alone(task, GLOBAL_BATCH)
    size = SIZES.get(kind, 4)
    makes: list[Make] = [uneven, pipeline, mixed, every_cut, *([tensor] if kind in DIVIDED else [])]
    found = {make.__name__: train(task, make(size, CUTS.get(kind, (1, 2, 3))))[0].distance(wanted) for make in makes}
    assert {name: distance for name, distance in found.items() if distance > EXACT} == {}


@pytest.mark.parametrize("kind", ["ResNet", *MADE])
def test_stages_begin_where_they_can(toy_data: DatasetVersion, kind: str) -> None:
    task = Family(toy_data, kind)
    torch.manual_seed(0)
    blocks, refused = cuts_of(task, task.model(), tensors_of(task.load("train")))
    assert len(blocks) == SIZES.get(kind, 4)
    assert {*range(1, len(blocks))} - {*refused} == {*CUTS.get(kind, (1, 2, 3))}


def test_a_cut_through_what_later_blocks_use_is_refused(train: Train, toy_data: DatasetVersion) -> None:
    task = Family(toy_data, "T5ForConditionalGeneration")
    with pytest.raises(
        PlanError, match=r"no stage can begin with block 2, encoder.block.1(.|\n)*encoder.block.0 makes"
    ):
        train(task, plan(stage(0, 2, [(8, 4)]), stage(2, 9, [(8, 4)])))
