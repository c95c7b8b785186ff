import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.distributed as dist

from heliostat.cluster.measured import Curve, GroupShape, Operation
from heliostat.train.collectives import measure_curves, operations
from heliostat.train.effort import QUICK


def measure(rank: int, world_size: int, meeting: str, members: Sequence[int]) -> tuple[Curve, ...]:
    """What one rank of a gloo group of `world_size` measures among `members`."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size, timeout=timeout)
    try:
        group = dist.new_group(list(members))
        if rank not in members:
            return ()
        shape = GroupShape(num_ranks=len(members), num_nodes=1, device_type="cpu", link="host")
        wanted = operations(len(members))
        return measure_curves(wanted, shape, device=torch.device("cpu"), effort=QUICK, group=group)
    finally:
        dist.destroy_process_group()


def on_ranks(
    ranks: ProcessPoolExecutor, folder: Path, world_size: int, members: Sequence[int]
) -> list[tuple[Curve, ...]]:
    meeting = (folder / f"meeting-{os.urandom(4).hex()}").as_uri()
    futures = [ranks.submit(measure, rank, world_size, meeting, members) for rank in range(world_size)]
    return [future.result(timeout=60) for future in futures]


@pytest.mark.dist
def test_two_ranks_measure_every_operation_and_agree(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    curves, others = on_ranks(ranks, tmp_path, 2, (0, 1))
    assert curves == others
    assert tuple(curve.operation for curve in curves) == get_args(Operation)
    for curve in curves:
        assert tuple(one.num_bytes for one in curve.samples) == QUICK.message_bytes
        assert all(one.seconds > 0 for one in curve.samples)
        assert [curve.time_s(one.num_bytes) for one in curve.samples] == [one.seconds for one in curve.samples]
        assert curve.line.bytes_per_s > 0


@pytest.mark.dist
def test_some_of_the_ranks_measure_while_the_others_rest(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    first, *rest = on_ranks(ranks, tmp_path, 3, (1, 2))
    assert first == ()
    assert rest[0] == rest[1]
    assert len(rest[0]) == len(get_args(Operation))


@pytest.mark.dist
def test_three_ranks_share_messages_evenly(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    curves = on_ranks(ranks, tmp_path, 3, (0, 1, 2))[2]
    assert {curve.operation for curve in curves} == set(get_args(Operation)) - {"send_recv"}
    for curve in curves:
        assert [one.num_bytes for one in curve.samples] == [1032, 16392, 1048584]
