from collections.abc import Callable

import pytest
from pydantic import ValidationError

from heliostat.placement.placement import Placement, RankPlacement
from heliostat.train.job import TrainJob

MakeJob = Callable[..., TrainJob]


def test_ranks_play_the_roles_of_their_placement(make_job: MakeJob) -> None:
    job = make_job([(9, 9), (15, 4)])
    ranks = tuple(
        RankPlacement(rank=rank, role=role, node_id="a", device_index=rank, device_kind="cpu")
        for rank, role in enumerate([1, 0])
    )
    assert job.roles is None
    moved = job.placed(Placement(ranks=ranks, reason="the test"))
    assert moved.roles == (1, 0)
    assert moved.identity == job.identity
    assert TrainJob.model_validate_json(moved.model_dump_json()) == moved


def test_every_role_is_played_once(make_job: MakeJob) -> None:
    job = make_job([(9, 9), (15, 4)])
    for roles in ((0,), (0, 0), (0, 1, 2)):
        with pytest.raises(ValidationError, match="are not those of a plan with 2 ranks"):
            TrainJob.model_validate(job.model_dump() | {"roles": roles})


def test_a_job_survives_json(make_job: MakeJob) -> None:
    job = make_job([(20, 7), (4, 4)], params={"width": 3, "fault": ""})
    assert TrainJob.model_validate_json(job.model_dump_json()) == job


def test_identity_is_what_the_curve_depends_on(make_job: MakeJob) -> None:
    job = make_job()
    assert make_job(directory="elsewhere", keep_checkpoints=9, max_restarts=0, metric="x").identity == job.identity
    assert make_job(seed=1).identity != job.identity
    assert make_job(epochs=3).identity != job.identity
    assert make_job(precision="bf16").identity != job.identity
    assert make_job(clip_norm=1.0).identity != job.identity
    assert make_job(compile=True, patience=3, verify=True).identity == job.identity
