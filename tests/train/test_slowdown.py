"""A slow device does more passes and learns exactly the same."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heliostat.cluster.emulated_node import VARIABLE, EmulatedNode
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.ports import free_ports
from heliostat.data.versions import DatasetVersion
from heliostat.train import telemetry, torchrun
from heliostat.train.evaluate import tensors_of
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.replica import Replica
from heliostat.train.slowdown import Repeater, factor_here
from heliostat.train.task import Batch
from tests.train.toy import Toy

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


class Normalised(Toy):
    """With batch normalisation and dropout; counts the rows that went through."""

    num_rows = 0

    def model(self) -> nn.Module:
        layers = [nn.Linear(4, self.width), nn.BatchNorm1d(self.width), nn.Tanh(), nn.Dropout(0.3)]
        return nn.Sequential(*layers, nn.Linear(self.width, 1))

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        self.num_rows += len(batch["label"])
        return super().loss(model, batch)


def trained(data: DatasetVersion) -> tuple[list[float], dict[str, Tensor], Tensor, int]:
    """Four steps in uneven micro-batches: the losses, the model, what torch would draw next, and rows through it."""
    torch.manual_seed(0)
    task = Normalised(data)
    tensors = tensors_of(task.load("train"))
    replica = Replica(task, weight_decay=0.01)
    results = [
        replica.step(tensors, torch.arange(24) + 24 * step, number=step, micro_batch=9, learning_rate=0.05)
        for step in range(4)
    ]
    return [result.loss for result in results], replica.model.state_dict(), torch.rand(3), task.num_rows


@pytest.mark.parametrize("factor", [2.0, 2.5])
def test_training_is_bit_equal_to_that_of_a_fast_device(
    factor: float, toy_data: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, model, drawn, num_rows = trained(toy_data)
    monkeypatch.setenv(VARIABLE, described(tmp_path, factor))
    slow_losses, slow_model, slow_drawn, slow_rows = trained(toy_data)
    assert slow_losses == losses
    assert all(torch.equal(slow_model[name], value) for name, value in model.items())
    assert torch.equal(slow_drawn, drawn)
    assert (num_rows, slow_rows) == (96, 96 * factor)


def repeated(factor: float, sizes: list[int]) -> list[list[int]]:
    """Rows of each extra pass, micro-batch by micro-batch."""
    model = nn.Linear(1, 1)
    repeater = Repeater(factor, model)
    passes: list[list[int]] = []

    def loss_of_first(num_rows: int) -> Tensor:
        passes[-1].append(num_rows)
        loss: Tensor = model(torch.ones(num_rows, 1)).sum()
        return loss

    for size in sizes:
        passes.append([])
        repeater.repeat(size, loss_of_first)
    assert all(parameter.grad is None for parameter in model.parameters())
    return passes


def test_there_are_as_many_extra_passes_as_asked() -> None:
    assert repeated(1.0, [8] * 10) == [[]] * 10
    assert repeated(3.0, [8] * 10) == [[8, 8]] * 10
    assert repeated(2.5, [8] * 10) == [[8, 4]] * 10
    assert repeated(2.5, [1] * 10) == [[1], [1, 1]] * 5
    assert sum(map(sum, repeated(1.3, [8] * 10))) == 24
    assert sum(map(sum, repeated(2.496, [7] * 10))) == pytest.approx(1.496 * 70, abs=2)


def test_no_pass_is_over_a_single_row_of_more() -> None:
    assert repeated(1.5, [2] * 4) == [[], [2], [], [2]]
    assert repeated(1.25, [7] * 4) == [[], [3], [2], [2]]


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
