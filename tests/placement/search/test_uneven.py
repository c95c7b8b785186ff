"""One stage whose replicas have shares of their own, against trying every division."""

import pytest

from heliostat.placement.constraints import Constraints
from heliostat.placement.ground import Shape
from heliostat.placement.search.costs import PLAIN
from heliostat.placement.search.draft import Draft, DraftStage
from heliostat.placement.search.engine import Search
from heliostat.placement.search.shares import Part
from heliostat.placement.search.uneven import uneven_drafts
from tests.placement.search.cases import A100, V100, Box, Case

CASE = Case((Box(A100, 1), Box(V100, 2)), layers=2, hidden=2048, global_batch=16)
SHAPE = Shape((1, 2), 1)


@pytest.mark.parametrize("pinned", [None, 2])
def test_the_best_division_is_found(pinned: int | None) -> None:
    one = Search(CASE.workload, CASE.cluster, Constraints(global_batch=16))
    (_, found), *rest = uneven_drafts(one.space.costs, SHAPE, [PLAIN], 16, pinned)
    assert not rest
    parts = found.stages[0].parts
    assert sum(part.num_replicas * part.num_samples for part in parts) == 16
    assert pinned in {None, max(part.micro_batch for part in parts)}
    ours = one.judge.try_(found)
    assert ours
    for own in range(2, 15, 2):
        for micro in (1, 2, 4, 8):
            other = (16 - own) // 2
            parts = (Part(0, 1, own, min(micro, own)), Part(1, 2, other, min(micro, other)))
            if pinned in {None, max(part.micro_batch for part in parts)}:
                stage = DraftStage(0, one.space.chain.num_blocks, SHAPE, PLAIN, parts)
                theirs = one.judge.try_(Draft((stage,), "none", 1, 0))
                assert theirs is None or ours.step_s <= theirs.step_s * 1.02
