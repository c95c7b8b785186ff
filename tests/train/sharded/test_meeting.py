import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from heliostat.errors import StoreError
from heliostat.train.sharded.meeting import Meeting

RANKS = 3


def meet(rank: int, meeting: str, failing: int | str | None, kind: str) -> Any:
    """What one rank of three gets, or the error that it sees, in words."""
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)

    def own() -> int:
        if rank == failing:
            raise StoreError("full") if kind == "ours" else OSError("full")
        return 10 * rank

    def join(values: list[int]) -> list[int]:
        if failing == "join":
            raise StoreError("full")
        return [value + sum(values) for value in values]

    try:
        return Meeting().meet(own, join)
    except (StoreError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        dist.destroy_process_group()


@pytest.fixture
def outcomes(ranks: ProcessPoolExecutor, tmp_path: Path) -> Callable[..., list[Any]]:
    def run(failing: int | str | None, kind: str = "ours") -> list[Any]:
        place = (tmp_path / f"meeting-{os.urandom(4).hex()}").as_uri()
        return [one.result(60) for one in [ranks.submit(meet, rank, place, failing, kind) for rank in range(RANKS)]]

    return run


@pytest.mark.dist
def test_every_rank_gets_its_own_answer(outcomes: Callable[..., list[Any]]) -> None:
    assert outcomes(None) == [30, 40, 50]


@pytest.mark.dist
@pytest.mark.parametrize("failing", [0, 2, "join"])
def test_an_error_of_one_is_an_error_of_all(outcomes: Callable[..., list[Any]], failing: int | str) -> None:
    assert outcomes(failing) == ["StoreError: full"] * RANKS


@pytest.mark.dist
def test_an_error_that_may_not_travel_goes_in_words(outcomes: Callable[..., list[Any]]) -> None:
    here, there = "OSError: full", "_Elsewhere: another rank: OSError: full"
    assert outcomes(1, "the system's") == [there, here, there]


def test_one_process_meets_itself() -> None:
    assert Meeting().meet(lambda: 1, lambda values: [sum(values) + 1]) == 2


def leave(rank: int, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    together = Meeting()
    if rank == 1:
        os._exit(9)
    try:
        together.meet(lambda: 1, lambda values: values)
    except RuntimeError:
        os._exit(7)


@pytest.mark.dist
def test_a_rank_that_is_gone_is_an_error(tmp_path: Path) -> None:
    context = get_context("forkserver")
    place = (tmp_path / "meeting").as_uri()
    both = [context.Process(target=leave, args=(rank, place)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [7, 9]
