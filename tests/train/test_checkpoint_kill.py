"""`kill -9` at random instants of runs that save all the time: what was committed stays, what is half is never seen.

A try goes on in the directory that the one before has left, as a run that is started again does.
"""

import os
import random
import signal
import time
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist

from heliostat.train import checkpoint
from heliostat.train.checkpointer import Checkpointer, Retention
from tests.train.layouts import LAYOUTS, State, states, values, zeros

CONTEXT = get_context("forkserver")
LONGEST_SAVE_S = 0.06
"""Of this state here; kills are spread over it."""
GONE = 7
"""Exit code of a rank that has noticed that another one is gone."""


class Case(NamedTuple):
    """One kind of run, and whom the kill hits in turn."""

    layout: str
    victims: tuple[tuple[int, ...], ...]
    num_tries: int


CASES = (
    Case("one", ((0,),), 30),
    Case("tensor2", ((0,), (1,), (0, 1)), 24),
)


def save_forever(rank: int, layout: str, meeting: str, directory: Path, first: int, known: Connection) -> None:
    """Save step after step; rank 0 tells every step that it knows to be committed."""
    torch.set_num_threads(1)
    num_ranks = LAYOUTS[layout].num_ranks
    if num_ranks > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num_ranks)
    retention = Retention(keep=2, metric="loss", mode="min")
    try:
        with Checkpointer(directory, identity={}, tied={}, retention=retention) as saver:
            for step in count(first):
                saver.save(step, states(LAYOUTS[layout], rank, values(step)), {})
                if rank == 0:
                    known.send(step - 1)
    except RuntimeError:
        os._exit(GONE)


def kill_once(case: Case, directory: Path, first: int, number: int) -> int:
    """Start the ranks, kill some, and wait for the others to end; the last step known to be committed."""
    layout, draw = case.layout, random.Random(number)
    reading, writing = CONTEXT.Pipe(duplex=False)
    meeting = (directory.parent / f"meeting-{layout}-{number}").as_uri()
    processes = [
        CONTEXT.Process(target=save_forever, args=(rank, layout, meeting, directory, first, writing))
        for rank in range(LAYOUTS[layout].num_ranks)
    ]
    for process in processes:
        process.start()
    writing.close()
    known: int = reading.recv()
    while known < first:  # so that every try has a commit of its own
        known = reading.recv()
    time.sleep(draw.uniform(0, LONGEST_SAVE_S))
    victims = case.victims[number % len(case.victims)]
    for rank in victims:
        os.kill(processes[rank].pid or 0, signal.SIGKILL)
    for rank, process in enumerate(processes):
        process.join(30)
        assert process.exitcode == (-signal.SIGKILL if rank in victims else GONE)
    with suppress(EOFError):
        while True:
            known = reading.recv()
    return known


def content(path: Path) -> dict[str, State]:
    found = zeros()
    checkpoint.read(path, states(LAYOUTS["one"], 0, found))
    return found


@pytest.mark.dist
@pytest.mark.parametrize("case", CASES, ids=[case.layout for case in CASES])
def test_a_kill_loses_nothing_that_was_committed(case: Case, tmp_path: Path) -> None:
    CONTEXT.set_forkserver_preload(["heliostat.train.torchrun"])
    directory, step, in_draft = tmp_path / "checkpoints", 0, 0
    for number in range(case.num_tries):
        known = kill_once(case, directory, step + 1, number)
        in_draft += any(directory.glob(".step-*.draft"))
        path = checkpoint.latest(directory)
        assert path is not None
        step = checkpoint.verify(path).step
        assert step >= known
        found = content(path)
        for part, right in values(step).items():
            assert all(torch.equal(found[part][name], one) for name, one in right.items())
    assert in_draft  # some of the kills hit a save
