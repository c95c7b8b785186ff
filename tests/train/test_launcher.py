import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from heliostat.cluster.discovery import discover
from heliostat.errors import PlacementError, ServiceError, TrainingFailure
from heliostat.placement.placement import Placement
from heliostat.placement.solver import solve
from heliostat.train import telemetry
from heliostat.train.job import TrainJob
from heliostat.train.launcher import gave_up, launch
from heliostat.train.loop import execute

# Ray Train 2.60 makes a DataContext, whose own defaults are deprecated
quietly = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

MakeJob = Callable[..., TrainJob]
TWO_RANKS = [(9, 9), (15, 4)]


def placing(job: TrainJob) -> Callable[[], Placement]:
    """Solve over what is free, waiting for what is just being given back; ranks of the plan in the reverse order."""

    def place() -> Placement:
        for _ in range(50):
            try:
                found = solve(job.plan, discover(1))
                break
            except (PlacementError, ServiceError):
                time.sleep(0.2)
        else:
            found = solve(job.plan, discover(1))
        last = len(found.ranks) - 1
        reverse = (one.model_copy(update={"role": last - one.role}) for one in found.ranks)
        return found.model_copy(update={"ranks": tuple(reverse)})

    return place


def losses(job: TrainJob) -> list[float]:
    return [record.loss for record in telemetry.steps(telemetry.file_of(job.directory, 0))]


def attempts(job: TrainJob, rank: int) -> list[telemetry.AttemptRecord]:
    records = telemetry.read(telemetry.file_of(job.directory, rank))
    return [record for record in records if isinstance(record, telemetry.AttemptRecord)]


def kill_rank_1_at(job: TrainJob, step: int) -> None:
    """Once `step` is done, plant half a checkpoint and kill the process of rank 1 as an operator would: kill -9."""
    while len(losses(job)) < step:
        time.sleep(0.05)
    planted = Path(job.directory) / "checkpoints" / "step-00000031"
    planted.mkdir()
    (planted / "model.pt").write_bytes(b"half a model")
    os.kill(attempts(job, rank=1)[-1].pid, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@quietly
def test_a_killed_worker_costs_only_the_steps_since_the_last_checkpoint(make_job: MakeJob) -> None:
    job = make_job(TWO_RANKS, epochs=8, params={"fault": "slow"}, checkpoint_every_steps=5)
    alone = make_job(epochs=8, directory="alone", checkpoint_every_steps=5)
    expected = execute(alone, num_threads=1)
    killer = Thread(target=kill_rank_1_at, args=(job, 7), daemon=True)
    killer.start()
    report = launch(job, placing(job), cpus_per_rank=1)
    killer.join()
    assert report.num_restarts == 1
    assert report.resumed_from_step in {*range(5, 32, 5), *range(8, 32, 4)}  # every fifth step, and every epoch's last
    assert [attempt.step for attempt in attempts(job, rank=0)] == [0, report.resumed_from_step]
    assert losses(job) == pytest.approx(losses(alone), rel=1e-5)
    assert report.metrics == pytest.approx(expected.metrics, rel=1e-5)
    assert report.placement is not None
    assert [rank.role for rank in report.placement.ranks] == [1, 0]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@quietly
def test_an_error_raised_on_purpose_ends_the_run_at_once(make_job: MakeJob) -> None:
    job = make_job(TWO_RANKS, params={"fault": "nan row"})
    with pytest.raises(TrainingFailure, match="not a finite number"):
        launch(job, placing(job), cpus_per_rank=1)
    assert len(attempts(job, rank=0)) == 1


def test_a_worker_lost_once_too_often_is_a_training_failure(make_job: MakeJob) -> None:
    lost = WorkerGroupError("all of the log", {1: RuntimeError("connection closed\nby peer"), 0: OSError("signal 9")})
    failure = gave_up(make_job(max_restarts=2), lost)
    assert "a worker was lost after 2 restarts" in str(failure)
    assert failure.got == "rank 0: OSError: signal 9; rank 1: RuntimeError: by peer"
