import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest

from heliostat.errors import CheckpointError, TrainingFailure, UserError
from heliostat.train import checkpoint, telemetry
from heliostat.train.evaluate import restore
from heliostat.train.job import TrainJob, TrainReport, TrainSettings
from heliostat.train.loop import execute, learning_rate
from heliostat.train.task import make_task
from tests.train.apply.runs import plan, stage

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]
NUM_STEPS = 8


def losses(job: TrainJob) -> list[float]:
    return [record.loss for record in telemetry.steps(telemetry.file_of(job.directory, 0))]


def checkpoints(job: TrainJob) -> list[str]:
    return sorted(path.name for path in (Path(job.directory) / "checkpoints").iterdir())


@pytest.mark.dist
@pytest.mark.parametrize(
    "shares", [[(15, 4), (9, 9)], [(12, 5), (6, 6), (4, 1), (2, 2)]], ids=["two ranks", "four ranks"]
)
def test_uneven_ranks_train_like_one_process(
    make_job: MakeJob, run_ranks: RunRanks, shares: list[tuple[int, int]]
) -> None:
    alone, shared = make_job(directory="alone"), make_job(shares, directory="shared")
    expected = execute(alone, num_threads=1)
    reports = run_ranks(shared)
    assert len(losses(shared)) == NUM_STEPS
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-5)
    assert reports[0].metrics == pytest.approx(expected.metrics, rel=1e-5)
    assert len(reports[0].compute_s) == len(shares)
    assert all(report.model_dump(exclude={"wall_s"}) == reports[0].model_dump(exclude={"wall_s"}) for report in reports)


@pytest.mark.dist
def test_ranks_may_reach_different_parameters(make_job: MakeJob, run_ranks: RunRanks) -> None:
    """With micro-batches of one row, each reaches one of two experts."""
    alone = make_job(directory="alone", params={"fault": "experts"})
    shared = make_job([(20, 1), (4, 4)], directory="shared", params={"fault": "experts"})
    execute(alone, num_threads=1)
    run_ranks(shared)
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.dist
def test_a_loss_that_is_not_finite_names_step_and_block(make_job: MakeJob, run_ranks: RunRanks) -> None:
    job = make_job([(20, 8), (4, 4)], params={"fault": "nan row"}, checkpoint_every_steps=1)
    with pytest.raises(TrainingFailure, match="not a finite number") as failure:
        run_ranks(job)
    assert failure.value.where is not None
    step = int(failure.value.where.removeprefix("step ").partition(",")[0])
    assert failure.value.where == f"step {step}, block 0"
    assert checkpoints(job)[-1:] == ([f"step-{step - 1:08d}"] if step > 1 else [])


@pytest.mark.dist
def test_torchrun_runs_a_job(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job([(16, 16), (8, 8)], directory="torchrun")
    alone = make_job(directory="alone")
    execute(alone, num_threads=1)
    file = tmp_path / "job.json"
    file.write_text(job.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "heliostat.train.torchrun"]
    done = subprocess.run([*command, str(file)], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"num_steps": 8' in done.stdout
    assert losses(job) == pytest.approx(losses(alone), rel=1e-5)


def test_a_resumed_run_repeats_the_curve_of_an_undisturbed_one(make_job: MakeJob) -> None:
    """Dropout included: the generator is seeded by (seed, step, rank)."""
    whole = make_job(directory="whole", params={"dropout": 0.3})
    broken = make_job(directory="broken", params={"dropout": 0.3})
    report = execute(whole, num_threads=1)

    class Cut(Exception):
        pass

    def cut(_: telemetry.EpochRecord) -> None:
        raise Cut

    with pytest.raises(Cut):
        execute(broken, num_threads=1, on_epoch=cut)
    resumed = execute(broken, num_threads=1)
    assert resumed.resumed_from_step == 4
    assert losses(broken) == pytest.approx(losses(whole), rel=1e-6)
    assert resumed.metrics == report.metrics
    again = execute(broken, num_threads=1)
    assert again.resumed_from_step == NUM_STEPS
    assert again.metrics == report.metrics
    assert again.step_time_s > 0


ONE_AFTER_THE_OTHER = (
    plan(stage(0, 7, [(13, 4), (11, 11)])),
    plan(stage(0, 3, [(24, 6)]), stage(3, 7, [(24, 6)])),
    plan(stage(0, 7, [(12, 5), (6, 6), (4, 1), (2, 2)], zero=2)),
    plan(stage(0, 2, [(24, 8)]), stage(2, 7, [(12, 4), (12, 4)], zero=1), schedule="zero-bubble"),
    plan(stage(0, 7, [(24, 24)])),
    plan(stage(0, 4, [(24, 12)], tensor_parallel=2), stage(4, 7, [(24, 12)], recompute="full"), schedule="gpipe"),
    plan(stage(0, 7, [(14, 7), (10, 5)], zero=3)),
)


@pytest.mark.dist
def test_a_run_may_change_its_plan_at_every_checkpoint(make_job: MakeJob, run_ranks: RunRanks) -> None:
    """Each plan goes on one step later than the one before, from what that one has saved, to the end."""
    alone = make_job(directory="alone", params={"fault": "deep"})
    job = make_job(params={"fault": "deep"}, checkpoint_every_steps=1, keep_checkpoints=NUM_STEPS)
    execute(alone, num_threads=1)
    for number, strategy in enumerate(ONE_AFTER_THE_OTHER):
        for path in (Path(job.directory) / "checkpoints").glob("step-*"):
            if int(path.name.removeprefix("step-")) > number:
                rmtree(path)
        report = run_ranks(job.model_copy(update={"plan": job.plan.model_copy(update={"strategy": strategy})}))[0]
        assert report.resumed_from_step == (number or None)
        assert losses(job) == pytest.approx(losses(alone), rel=1e-5)


def test_a_half_written_checkpoint_is_passed_over(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    whole, job = make_job(directory="whole"), make_job(directory="job", keep_checkpoints=9)
    execute(whole, num_threads=1)
    execute(job, num_threads=1)
    directory = Path(job.directory) / "checkpoints"
    (directory / "step-00000008" / "manifest.json").unlink()
    next((directory / "step-00000006" / "model").glob("*.distcp")).write_bytes(b"half")
    report = execute(job, num_threads=1)
    assert report.resumed_from_step == 4
    assert losses(job) == pytest.approx(losses(whole), rel=1e-6)
    assert "step-00000008" in caplog.text
    assert "step-00000006" in caplog.text
    assert checkpoint.verify(directory / "step-00000008").step == NUM_STEPS


def test_the_last_checkpoints_and_the_best_are_kept(make_job: MakeJob) -> None:
    job = make_job(checkpoint_every_steps=1, keep_checkpoints=2, metric="brier", mode="max", learning_rate=0.2)
    report = execute(job, num_threads=1)
    assert checkpoints(job) == ["step-00000004", "step-00000007", "step-00000008"]
    assert report.checkpoint.endswith("step-00000004")
    assert report.metrics == checkpoint.verify(report.checkpoint).metrics


def test_a_directory_of_another_run_is_refused(make_job: MakeJob) -> None:
    execute(make_job(), num_threads=1)
    with pytest.raises(CheckpointError, match="another training run") as refusal:
        execute(make_job(learning_rate=0.01, params={"width": 9}), num_threads=1)
    assert refusal.value.got == "params: {} there, {'width': 9} now; learning_rate: 0.05 there, 0.01 now"


def test_shares_may_change_between_attempts(make_job: MakeJob) -> None:
    assert make_job([(24, 24)]).identity == make_job([(20, 4), (4, 4)]).identity


@pytest.mark.parametrize(
    ("fault", "got"),
    [
        ("mean", r"a tensor of shape \(\)"),
        ("rows", r"a sum that is a tensor of shape \(2,\)"),
        ("no count", "a count that is 0"),
    ],
)
def test_a_broken_loss_contract_is_explained(make_job: MakeJob, fault: str, got: str) -> None:
    with pytest.raises(TrainingFailure, match=f"sum of the losses, how many they are(.|\n)*got: {got}"):
        execute(make_job(params={"fault": fault}), num_threads=1)


def test_an_error_in_the_users_loss_names_step_and_rank(make_job: MakeJob) -> None:
    with pytest.raises(TrainingFailure, match="Toy raised KeyError: 'colour'") as failure:
        execute(make_job(params={"fault": "raises"}), num_threads=1)
    assert failure.value.where == "step 1, rank 0"


def test_a_metric_that_the_task_does_not_have(make_job: MakeJob) -> None:
    with pytest.raises(UserError, match=r"no metric 'acuracy'.*did you mean 'accuracy'"):
        execute(make_job(metric="acuracy"), num_threads=1)


def test_a_parameter_that_the_loss_does_not_reach_only_decays(make_job: MakeJob) -> None:
    job = make_job(params={"fault": "unused"}, weight_decay=0.0)
    model = restore(make_task(job.task, job.data, job.params), execute(job, num_threads=1).checkpoint)
    assert model.get_parameter("unused").tolist() == [1.0, 1.0, 1.0]


def test_the_learning_rate_rises_then_falls() -> None:
    settings = TrainSettings(epochs=1, learning_rate=1.0, warmup_fraction=0.2, metric="auc")
    rates = [learning_rate(settings, step, 50) for step in range(50)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01
    cold = TrainSettings(epochs=1, learning_rate=1.0, warmup_fraction=0.0, metric="auc")
    assert math.isclose(learning_rate(cold, 0, 50), 1.0)


def test_an_epoch_reaches_the_listener_after_its_checkpoint(make_job: MakeJob) -> None:
    job = make_job(epochs=3)
    seen = []

    def listen(record: telemetry.EpochRecord) -> None:
        path = checkpoint.latest(Path(job.directory) / "checkpoints")
        assert path is not None
        seen.append((record.epoch, record.metrics == checkpoint.verify(path).metrics))

    execute(job, num_threads=1, on_epoch=listen)
    assert seen == [(1, True), (2, True), (3, True)]
    assert [record.epoch for record in telemetry.epochs(telemetry.file_of(job.directory, 0))] == [1, 2, 3]
