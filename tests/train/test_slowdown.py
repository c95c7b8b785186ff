"""A slow device rests, and learns exactly the same."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from heliostat.cluster.emulated_node import VARIABLE, EmulatedNode
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.ports import free_ports
from heliostat.train import telemetry, torchrun
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.slowdown import Pace, factor_here

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]


def described(directory: Path, *slowdowns: float) -> str:
    """The file that describes a node with devices so slow."""
    devices = tuple(Device(type="T4", index=index, memory_bytes=1) for index in range(len(slowdowns)))
    node = EmulatedNode(node_id="n", machine=Machine(name="m", devices=devices), slowdowns=slowdowns)
    path = directory / "node.json"
    path.write_text(node.model_dump_json())
    return str(path)


def test_the_factor_is_that_of_the_first_visible_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert factor_here() == 1.0
    monkeypatch.setenv(VARIABLE, described(tmp_path, 1.5, 3.0))
    assert factor_here() == 1.5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert factor_here() == 3.0


def busy(seconds: float) -> None:
    """Take so much processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_a_pass_and_its_rest_take_as_long_as_asked(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    pace = Pace(factor)
    for _ in range(2):
        with pace.passing():
            busy(0.02)
            pace.rest()
            busy(0.01)
        pace.rest()
    wanted = [pytest.approx(0.03, rel=0.1), pytest.approx(0.015, rel=0.1)]
    assert rests == ([] if factor == 1.0 else wanted * 2)


def test_waiting_within_a_pass_makes_it_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(3.0)
    rests: list[float] = []
    wait = Event().wait
    monkeypatch.setattr(time, "sleep", rests.append)
    with pace.passing():
        wait(0.05)
    assert sum(rests) < 0.01


@pytest.mark.dist
def test_a_gang_with_a_slow_rank_learns_the_same(
    make_job: MakeJob, run_ranks: RunRanks, ranks: ProcessPoolExecutor, tmp_path: Path
) -> None:
    shares = [(9, 4), (15, 4)]
    even = make_job(shares, params={"dropout": 0.2})
    run_ranks(even)
    job = make_job(shares, params={"dropout": 0.2}, directory="slow")
    port = free_ports(1)[0]
    meeting = f"tcp://127.0.0.1:{port}"
    fast = ranks.submit(torchrun.run, job, num_threads=1, init_method=meeting, rank=0, world_size=2)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "1", "WORLD_SIZE": "2"}
    slow = {VARIABLE: described(tmp_path, 2.5), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "heliostat.train.torchrun", str(tmp_path / "job.json")]
    subprocess.run(command, env={**os.environ, **place, **slow}, check=True)
    assert fast.result(timeout=60).num_steps == 8
    assert losses(job) == losses(even)


def losses(job: TrainJob) -> list[float]:
    return [record.loss for record in telemetry.steps(telemetry.file_of(job.directory, 0))]
