from collections.abc import Callable

from heliostat.placement.placement import Placement, RankPlacement
from heliostat.train.job import TrainJob, placed

MakeJob = Callable[..., TrainJob]


def test_ranks_take_the_shares_of_their_placement(make_job: MakeJob) -> None:
    job = make_job([(9, 9), (15, 4)])
    ranks = tuple(
        RankPlacement(rank=rank, node_id="a", device_index=rank, device_kind="cpu", num_samples=n, micro_batch=m)
        for rank, (n, m) in enumerate([(15, 4), (9, 9)])
    )
    moved = placed(job, Placement(ranks=ranks, reason="the test"))
    assert [(replica.num_samples, replica.micro_batch) for replica in moved.replicas] == [(15, 4), (9, 9)]
    assert moved.identity == job.identity


def test_a_job_survives_json(make_job: MakeJob) -> None:
    job = make_job([(20, 7), (4, 4)], params={"width": 3, "fault": ""})
    assert TrainJob.model_validate_json(job.model_dump_json()) == job


def test_identity_is_what_the_curve_depends_on(make_job: MakeJob) -> None:
    job = make_job()
    assert make_job(directory="elsewhere", keep_checkpoints=9, max_restarts=0, metric="x").identity == job.identity
    assert make_job(seed=1).identity != job.identity
    assert make_job(epochs=3).identity != job.identity
