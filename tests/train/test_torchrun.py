"""Plain torchrun: as many processes as the plan has ranks, on the devices it is for."""

from collections.abc import Callable

import pytest
import torch

from heliostat.errors import PlacementError, PlanError
from heliostat.train import device, torchrun
from heliostat.train.job import TrainJob

MakeJob = Callable[..., TrainJob]


@pytest.mark.parametrize("num_processes", [1, 3])
def test_another_number_of_workers_than_the_plan_needs(make_job: MakeJob, num_processes: int) -> None:
    with pytest.raises(PlanError, match=f"the plan needs 2 workers, {num_processes} were started"):
        torchrun.run(make_job([(9, 9), (15, 4)]), num_threads=1, rank=0, world_size=num_processes)


def test_the_number_of_workers_is_torchruns(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(PlanError, match="the plan needs 1 workers, 4 were started"):
        torchrun.run(make_job(), num_threads=1)


def on(job: TrainJob, kind: str, origin: str = "live") -> TrainJob:
    stage = job.plan.stages[0]
    replicas = tuple(one.model_copy(update={"device_kind": kind}) for one in stage.replicas)
    stages = (stage.model_copy(update={"replicas": replicas}),)
    strategy = job.plan.strategy.model_copy(update={"stages": stages})
    return job.model_copy(update={"plan": job.plan.model_copy(update={"strategy": strategy, "cluster_origin": origin})})


def test_ranks_on_cores_talk_through_gloo(make_job: MakeJob) -> None:
    for job in (make_job(), on(make_job(), "cpu@0.50"), on(make_job(), "A100-40GB-SXM", "emulated")):
        assert device.backend_of(job.plan) == "gloo"
        assert device.own_device(job.plan) == torch.device("cpu")
        device.take(job.plan, 7)


def test_a_rank_without_a_gpu_of_its_own(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = on(make_job(), "A100-40GB-SXM")
    assert device.backend_of(job.plan) == "cpu:gloo,cuda:nccl"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PlacementError, match="no GPU for rank 2 of this node"):
        device.take(job.plan, 2)
