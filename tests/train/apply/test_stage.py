"""A part of a model runs as its place in the whole."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from heliostat.train.apply.chain import chain_of
from heliostat.train.apply.stage import Stage, Whole, spans_of
from heliostat.train.profiling.structure import structure_of
from tests.train.apply.runs import plan, stage
from tests.train.apply.test_chain import WIDTH, Chained

CPU = torch.device("cpu")


def test_chunks_take_turns() -> None:
    strategy = plan(stage(0, 5, [(4, 1)]), stage(5, 9, [(4, 1)]), schedule="interleaved", chunks=2)
    spans = [[(span.first, span.end) for span in spans_of(strategy, number)] for number in range(2)]
    assert spans == [[(0, 3), (5, 7)], [(3, 5), (7, 9)]]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_two_parts_make_the_whole(cut: int) -> None:
    torch.manual_seed(0)
    model, rows = Chained(), torch.randn(3, WIDTH)
    wanted = model(rows)
    first, last = part(model, 0, cut, rows), part(model, 1, cut, rows)

    def call(one: nn.Module) -> Tensor:
        found: Tensor = one(rows)
        return found

    crossing: list[Tensor] = first.forward(0, call, 3, [])
    assert [tuple(one.shape[1:]) for one in crossing] == [leaf.shape for leaf in first.gives(0)]
    assert first.takes(0) == last.gives(0) == ()
    assert last.takes(0) == first.gives(0)
    torch.testing.assert_close(last.forward(0, call, 3, crossing), wanted)
    torch.testing.assert_close(Whole(model).forward(0, call, 3, []), wanted)


def part(model: nn.Module, number: int, cut: int, rows: Tensor) -> Stage:
    """One of two stages of a copy of the model."""
    own = deepcopy(model)
    blocks = structure_of(own, {"rows": rows}, lambda twin, batch: twin(batch["rows"]).sum())
    chain = chain_of(own, blocks, lambda twin, size: twin(rows[:size]).sum())
    strategy = plan(stage(0, cut, [(4, 1)]), stage(cut, 5, [(4, 1)]))
    found = Stage(own, chain, spans_of(strategy, number), CPU)
    found.close()
    return found
