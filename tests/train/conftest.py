"""Jobs of the toy task, and ranks to run them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from heliostat.data.encoder import Encoder
from heliostat.data.versions import DatasetVersion
from heliostat.train import torchrun
from heliostat.train.job import TrainJob, TrainReport, TrainSettings
from tests.placement.plans import data_parallel

TOY = f"{Path(__file__).parent / 'toy.py'}:Toy"
BATCH = 24

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]


@pytest.fixture(scope="session")
def toy_data() -> DatasetVersion:
    """A version in name only: the toy task makes its rows itself."""
    return DatasetVersion(
        uri="nowhere",
        name="toy",
        version=0,
        label="label",
        num_rows={},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(numeric=(), categorical=()),
    )


@pytest.fixture
def make_job(toy_data: DatasetVersion, tmp_path: Path) -> MakeJob:
    """A job whose ranks take `shares`, each a pair (samples, micro-batch), of global batches of 24 rows."""

    def make(
        shares: Sequence[tuple[int, int]] = ((BATCH, BATCH),),
        *,
        directory: str = "job",
        params: dict[str, Any] | None = None,
        **settings: Any,
    ) -> TrainJob:
        defaults: dict[str, Any] = {
            "epochs": 2,
            "learning_rate": 0.05,
            "checkpoint_every_steps": 3,
            "metric": "brier",
            "mode": "min",
        }
        return TrainJob(
            task=TOY,
            params=params or {},
            data=toy_data,
            plan=data_parallel([("cpu", n, m) for n, m in shares]),
            settings=TrainSettings(**(defaults | settings)),
            directory=str(tmp_path / directory),
        )

    return make


@pytest.fixture(scope="session")
def ranks() -> Iterator[ProcessPoolExecutor]:
    """Four processes that have imported the executor."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["heliostat.train.torchrun"])
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        yield pool


@pytest.fixture
def run_ranks(ranks: ProcessPoolExecutor, tmp_path: Path) -> RunRanks:
    """Run a job on as many gloo processes as it has replicas; its reports by rank, or the first rank's error."""

    def run(job: TrainJob) -> list[TrainReport]:
        world_size = job.plan.num_ranks
        meeting = tmp_path / f"meeting-{os.urandom(4).hex()}"
        futures = [
            ranks.submit(
                torchrun.run, job, num_threads=1, init_method=meeting.as_uri(), rank=rank, world_size=world_size
            )
            for rank in range(world_size)
        ]
        return [future.result(timeout=60) for future in futures]

    return run
