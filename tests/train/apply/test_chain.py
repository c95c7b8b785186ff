"""Where models can be cut, and what crosses."""

import pytest
import torch
from torch import Tensor, nn

from heliostat.errors import PlanError
from heliostat.train.apply.chain import Chain, chain_of
from heliostat.train.profiling.run import meta_twin
from heliostat.train.profiling.structure import structure_of

WIDTH = 4


class Chained(nn.Module):
    """Layers, and what a test makes of them."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3))
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, rows: Tensor) -> Tensor:
        start = x = self.dropout(self.first(rows))
        for layer in self.layers:
            x = layer(x)
        if self.kind == "skip":
            x = x + start
        if self.kind == "again":
            x = self.first(x)
        if self.kind == "detached":
            x = x.detach()
        found: Tensor = self.last(self.dropout(x))
        return found


def chain(kind: str = "") -> Chain:
    model, rows = meta_twin(Chained(kind)), torch.randn(3, WIDTH)
    blocks = structure_of(model, {"rows": rows}, lambda twin, batch: twin(batch["rows"]).sum())
    return chain_of(model, blocks, lambda twin, size: twin(rows[:size].to("meta")).sum())


def test_every_block_may_begin_a_stage() -> None:
    found = chain()
    assert found.refused == {}
    assert [found.entry(block) for block in range(5)] == ["first", "layers.0", "layers.1", "layers.2", "last"]
    assert [len(found.crossing(block)) for block in range(6)] == [0, 1, 1, 1, 1, 0]
    assert found.crossing(2)[0].shape == (WIDTH,)


def test_a_module_without_parameters_may_run_more_than_once() -> None:
    assert all("dropout" not in block.modules for block in chain().blocks)


def test_a_module_with_parameters_may_not() -> None:
    with pytest.raises(PlanError, match="module first runs more than once"):
        chain("again")


def test_a_cut_under_a_skip_is_refused() -> None:
    found = chain("skip")
    assert set(found.refused) == {1, 2, 3}
    with pytest.raises(PlanError, match=r"no stage can begin with block 2, layers.1(.|\n)*what first makes"):
        found.check_cut(2)


def test_what_has_no_gradient_cannot_cross() -> None:
    found = chain("detached")
    with pytest.raises(PlanError, match=r"block 4, last(.|\n)*last is given no tensor with a batch and a gradient"):
        found.check_cut(4)
    found.check_cut(3)
