"""Functions on the ranks of a gloo group."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

Act = Callable[..., Any]
"""Called with the rank and further arguments; the name of it is known to other processes."""


def together(ranks: ProcessPoolExecutor, folder: Path, act: Act, num_ranks: int, *args: Any) -> list[Any]:
    """What `act` returns on each of the ranks; a single rank has no group."""
    meeting = (folder / f"meeting-{os.urandom(4).hex()}").as_uri()
    futures = [ranks.submit(_on_rank, act, rank, num_ranks, meeting, *args) for rank in range(num_ranks)]
    return [future.result(timeout=100) for future in futures]


def _on_rank(act: Act, rank: int, num_ranks: int, meeting: str, *args: Any) -> Any:
    torch.set_num_threads(1)
    if num_ranks == 1:
        return act(rank, *args)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num_ranks)
    try:
        return act(rank, *args)
    finally:
        dist.destroy_process_group()
