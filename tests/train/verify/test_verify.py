from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import PlanError, TrainingFailure
from heliostat.placement.strategy import Strategy
from heliostat.train import telemetry
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.loop import execute
from heliostat.train.task import Task
from heliostat.train.verify.verification import Check, Verification
from heliostat.train.verify.verify import check_plan, verify_alone
from tests.train.apply.runs import plan, stage
from tests.train.apply.tasks import Spelling
from tests.train.gloo import together
from tests.train.verified import Mean, Noisy, Stateful

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]
BLOCKS = 6
VERIFIED = f"{Path(__file__).parent.parent / 'verified.py'}"

PLANS = {
    "uneven": plan(stage(0, BLOCKS, [(47, 6), (17, 17)])),
    "zero 3": plan(stage(0, BLOCKS, [(9, 3), (3, 3)], zero=3)),
    "tensor, recomputed": plan(stage(0, BLOCKS, [(12, 3)], tensor_parallel=2, recompute="full")),
    "sequence": plan(stage(0, BLOCKS, [(12, 3)], tensor_parallel=2, sequence_parallel=True)),
    "tensor, zero 2": plan(stage(0, BLOCKS, [(8, 4), (4, 2)], tensor_parallel=2, zero=2)),
    "stages of different width": plan(
        stage(0, 3, [(24, 3), (24, 3)]), stage(3, 4, [(48, 6)]), stage(4, BLOCKS, [(48, 6)]), schedule="zero-bubble"
    ),
    "tensor, then not": plan(stage(0, 2, [(12, 3)], tensor_parallel=2), stage(2, BLOCKS, [(12, 3)])),
    "interleaved": plan(stage(0, 3, [(56, 4)]), stage(3, BLOCKS, [(56, 4)]), schedule="interleaved", chunks=2),
}  # fmt: skip


def checked(_: int, task: Task, strategy: Strategy, settings: EngineSettings) -> tuple[Check, ...]:
    return check_plan(task, strategy, tensors_of(task.load("train")), settings)


@pytest.fixture
def check(ranks: ProcessPoolExecutor, tmp_path: Path) -> Callable[..., dict[str, Check]]:
    """The checks of a plan, by name; all ranks have the same."""

    def run(task: Task, strategy: Strategy, **settings: Any) -> dict[str, Check]:
        first, *others = together(
            ranks, tmp_path, checked, strategy.num_ranks, task, strategy, EngineSettings(**settings)
        )
        assert all(one == first for one in others)
        return {one.name: one for one in first}

    return run


@pytest.mark.dist
@pytest.mark.parametrize("strategy", PLANS.values(), ids=PLANS)
def test_a_plan_trains_like_one_process_and_communicates_as_it_says(
    toy_data: DatasetVersion, check: Callable[..., dict[str, Check]], strategy: Strategy
) -> None:
    found = check(Spelling(toy_data), strategy, weight_decay=0.01, clip_norm=0.5)
    assert [one.failures for one in found.values()] == [(), (), ()]
    assert found["communication"].terms
    assert max(abs(term.got / term.expected - 1) for term in found["equality"].terms) < 1e-5


@pytest.mark.dist
def test_sixteen_bits_have_a_tolerance_of_their_own(
    toy_data: DatasetVersion, check: Callable[..., dict[str, Check]]
) -> None:
    found = check(Spelling(toy_data), PLANS["tensor, then not"], precision="bf16")
    assert [one.failures for one in found.values()] == [(), (), ()]


@pytest.mark.dist
def test_dropout_is_no_difference(toy_data: DatasetVersion, check: Callable[..., dict[str, Check]]) -> None:
    found = check(Noisy(toy_data), PLANS["uneven"])
    assert not found["equality"].failures


@pytest.mark.dist
def test_a_model_that_counts_its_calls_is_not_what_one_process_trains(
    toy_data: DatasetVersion, check: Callable[..., dict[str, Check]]
) -> None:
    equality = check(Stateful(toy_data), PLANS["uneven"])["equality"]
    error = equality.error()
    assert isinstance(error, PlanError)
    assert error.got is not None
    assert "loss of step " in error.got
    assert "the model keeps state between calls" in error.causes


@pytest.mark.dist
def test_a_verified_run_is_the_run_that_was_not_verified(make_job: MakeJob, run_ranks: RunRanks) -> None:
    shares = [(15, 4), (9, 9)]
    plain, verified = (make_job(shares, directory=f"verify {verify}", verify=verify) for verify in (False, True))
    run_ranks(plain)
    run_ranks(verified)
    losses = [
        [record.loss for record in telemetry.steps(telemetry.file_of(job.directory, 0))] for job in (plain, verified)
    ]
    assert losses[0] == losses[1]
    assert Verification.read(Path(plain.directory)) is None
    found = Verification.read(Path(verified.directory))
    assert found is not None
    assert found.passed
    assert [one.name for one in found.checks] == ["loss contract", "equality", "communication"]


def test_a_mean_is_refused_before_the_first_step(make_job: MakeJob) -> None:
    job = make_job(verify=True).model_copy(update={"task": f"{VERIFIED}:{Mean.__name__}"})
    with pytest.raises(TrainingFailure, match=r"Mean\.loss does not add up"):
        execute(job, num_threads=1)
    assert telemetry.steps(telemetry.file_of(job.directory, 0)) == []


def test_random_numbers_go_on_as_if_nothing_had_been_checked(toy_data: DatasetVersion, make_job: MakeJob) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert verify_alone(make_job(), num_threads=1).passed
    assert torch.equal(torch.rand(3), expected)
