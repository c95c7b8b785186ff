"""Plain torchrun: as many processes as the plan has ranks, on the devices it is for."""

from collections.abc import Callable

import pytest
import torch

from heliostat.errors import PlacementError, PlanError
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.train import device, telemetry, torchrun
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.loop import execute

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]


@pytest.mark.parametrize("num_processes", [1, 3])
def test_another_number_of_workers_than_the_plan_needs(make_job: MakeJob, num_processes: int) -> None:
    with pytest.raises(PlanError, match=f"the plan needs 2 workers, {num_processes} were started"):
        torchrun.run(make_job([(9, 9), (15, 4)]), num_threads=1, rank=0, world_size=num_processes)


def test_the_number_of_workers_is_torchruns(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(PlanError, match="the plan needs 1 workers, 4 were started"):
        torchrun.run(make_job(), num_threads=1)


@pytest.mark.dist
def test_a_pipeline_whose_ranks_play_the_roles_of_others(make_job: MakeJob, run_ranks: RunRanks) -> None:
    alone, shared = (make_job(directory=name, params={"fault": "deep"}) for name in ("alone", "shared"))
    shares = ([(24, 6)], [(16, 4), (8, 2)])
    stages = tuple(
        StageStrategy(
            first_block=first,
            end_block=end,
            replicas=tuple(ReplicaShare(device_kind="cpu", num_samples=n, micro_batch=m) for n, m in own),
            zero=min(1, len(own) - 1),
            recompute="full",
        )
        for first, end, own in ((0, 3, shares[0]), (3, 7, shares[1]))
    )
    strategy = Strategy(global_batch=24, stages=stages, schedule="1f1b")
    plan = shared.plan.model_copy(update={"strategy": strategy})
    run_ranks(shared.model_copy(update={"plan": plan, "roles": (2, 0, 1)}))
    execute(alone, num_threads=1)
    own, other = (
        [step.loss for step in telemetry.steps(telemetry.file_of(job.directory, 0))] for job in (shared, alone)
    )
    assert own == pytest.approx(other, rel=1e-5)


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
