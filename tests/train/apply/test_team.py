"""The ranks of a run as its plan sees them."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from heliostat.train.apply.team import Team
from tests.train.apply.runs import plan, stage
from tests.train.gloo import together

PLAN = plan(stage(0, 1, [(4, 4)]), stage(1, 2, [(2, 2), (2, 2)]))
ORDER = (2, 0, 1)
"""Process 1 is the first stage; 2 and 0 are the replicas of the second."""


@pytest.mark.dist
def test_groups_are_of_processes(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    assert together(ranks, tmp_path, summed, 3) == [1.0 + 4.0, 2.0, 1.0 + 4.0]


def summed(rank: int) -> float:
    """Over the replicas of this process's stage, what each has: 1, 2 and 4."""
    team = Team(PLAN, ORDER)
    assert team.rank(0, 0, 0) == 1
    own = team.replicas(team.role.stage, 0)
    assert own == ((1,) if rank == 1 else (2, 0))
    assert team.mates(team.role) == (rank,)
    team.open({team.replicas(0, 0), team.replicas(1, 0)})
    value = torch.tensor(2.0**rank)
    group = team.group(own)
    if group is not None:
        dist.all_reduce(value, group=group)
    return value.item()


def test_one_process_is_a_team() -> None:
    team = Team(plan(stage(0, 1, [(4, 2)])))
    team.open({(0,)})
    assert team.group((0,)) is None
    assert team.replicas(0, 0) == (0,)
