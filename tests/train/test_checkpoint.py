import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from heliostat.errors import CheckpointError, StoreError
from heliostat.train import checkpoint
from heliostat.train.checkpointer import Checkpointer, Retention
from heliostat.train.pieces import whole

WEIGHT = "__0_0.distcp"
"""The file of what rank 0 has written of a part."""


def saver(directory: Path, *, keep: int = 9) -> Checkpointer:
    return Checkpointer(directory, identity={"seed": 7}, tied={}, retention=Retention(keep, "auc", "max"))


def commit(directory: Path, step: int, *, keep: int = 9, **metrics: float) -> Path:
    states = {"model": {"weight": whole(torch.full((4,), float(step)))}, "optimizer": {}}
    with saver(directory, keep=keep) as one:
        one.save(step, states, metrics)
    return directory / f"step-{step:08d}"


def weight(path: Path) -> Tensor:
    found = torch.zeros(4)
    checkpoint.read(path, {"model": {"weight": whole(found)}})
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """The operating system itself refuses to write more, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    path = commit(tmp_path, 50, auc=0.7)
    assert checkpoint.latest(tmp_path) == path
    manifest = checkpoint.verify(path)
    assert (manifest.step, manifest.metrics, manifest.identity) == (50, {"auc": 0.7}, {"seed": 7})
    assert set(manifest.files) == {f"model/{WEIGHT}", "model/.metadata", "optimizer/.metadata"}
    assert weight(path).tolist() == [50.0] * 4
    assert names(tmp_path) == ["step-00000050"]


def test_nothing_committed_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None
    assert checkpoint.best(tmp_path, "auc", "max") is None


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path: Path) -> None:
    values = torch.arange(100_000.0)
    with saver(tmp_path) as one:
        for step in range(1, 4):
            one.save(step, {"model": {"weight": whole(values)}}, {})
            values += 1
    for step in range(1, 4):
        found = torch.zeros_like(values)
        assert checkpoint.read(tmp_path / f"step-0000000{step}", {"model": {"weight": whole(found)}}).step == step
        assert torch.equal(found, torch.arange(100_000.0) + step - 1)


def test_after_wait_the_last_save_is_committed(tmp_path: Path) -> None:
    with saver(tmp_path) as one:
        one.save(1, {"model": {"weight": whole(torch.ones(4))}}, {"auc": 0.5})
        one.wait()
        assert checkpoint.verify(tmp_path / "step-00000001").metrics == {"auc": 0.5}


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "cut file", "changed file", "missing file"])
def test_damage_is_seen_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    good, bad = commit(tmp_path, 50, auc=0.7), commit(tmp_path, 100, auc=0.8)
    manifest, model = bad / "manifest.json", bad / "model" / WEIGHT
    match damage:
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_text(manifest.read_text()[:40])
        case "cut file":
            model.write_bytes(model.read_bytes()[:-10])
        case "changed file":
            model.write_bytes(model.read_bytes()[:-1] + b"x")
        case "missing file":
            model.unlink()
    assert checkpoint.latest(tmp_path) == good
    assert checkpoint.best(tmp_path, "auc", "max") == good
    assert str(bad) in caplog.text
    for reader in (checkpoint.weights_digest, lambda path: checkpoint.load_into(nn.Linear(2, 2), path)):
        with pytest.raises(CheckpointError, match="manifest"):
            reader(bad)
    assert checkpoint.verify(commit(tmp_path, 100, auc=0.9)).metrics == {"auc": 0.9}


def test_drafts_that_a_killed_run_has_left_are_no_checkpoints_and_are_removed(tmp_path: Path) -> None:
    for step in (50, 60):
        draft = tmp_path / f".step-000000{step}.draft" / "model"
        draft.mkdir(parents=True)
        (draft / WEIGHT).write_bytes(b"half")
    assert checkpoint.latest(tmp_path) is None
    assert weight(commit(tmp_path, 50)).tolist() == [50.0] * 4
    assert names(tmp_path) == ["step-00000050"]


def test_the_best_is_by_metric_and_mode_and_the_earlier_of_equals(tmp_path: Path) -> None:
    for step, auc in [(1, 0.5), (2, 0.9), (3, 0.9), (4, 0.1)]:
        commit(tmp_path, step, auc=auc)
    commit(tmp_path, 5)
    assert checkpoint.best(tmp_path, "auc", "max") == tmp_path / "step-00000002"
    assert checkpoint.best(tmp_path, "auc", "min") == tmp_path / "step-00000004"
    assert checkpoint.best(tmp_path, "loss", "min") is None


def test_the_latest_and_the_best_stay(tmp_path: Path) -> None:
    (tmp_path / "step-00000009").mkdir()
    for step in range(1, 7):
        commit(tmp_path, step, keep=2, auc=1 / step)
    assert names(tmp_path) == [f"step-0000000{step}" for step in (1, 5, 6, 9)]


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    good = commit(tmp_path, 50)
    with no_file_larger_than(512), pytest.raises(StoreError, match=r"cannot be written(.|\n)*File too large"):
        commit(tmp_path, 100)
    assert checkpoint.latest(tmp_path) == good
    assert names(tmp_path) == ["step-00000050"]


def test_an_error_of_the_write_is_told_by_the_next_save_and_the_one_after_can_be_written(tmp_path: Path) -> None:
    state = {"model": {"weight": whole(torch.ones(4))}}
    with saver(tmp_path) as one:
        with no_file_larger_than(512):
            one.save(1, state, {})
            with pytest.raises(StoreError, match="cannot be written"):
                one.save(2, state, {})
        one.save(3, state, {})
    assert names(tmp_path) == ["step-00000003"]


def test_an_error_under_way_goes_before_that_of_the_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train() -> None:
        with no_file_larger_than(512), saver(tmp_path) as one:
            one.save(1, {"model": {"weight": whole(torch.ones(4))}}, {})
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train()
    assert "was not committed" in caplog.text


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="Not a directory"):
        commit(tmp_path / "file" / "checkpoints", 1)


def test_a_crash_before_the_rename_leaves_nothing_that_looks_committed(tmp_path: Path) -> None:
    commit(tmp_path, 50)
    pid = os.fork()
    if pid == 0:  # die between the manifest and the rename
        rename = Path.rename

        def dying(path: Path, target: Path) -> Path:
            return os._exit(9) if target.name == "step-00000100" else rename(path, target)

        Path.rename = dying  # type: ignore[method-assign, assignment]
        commit(tmp_path, 100)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert names(tmp_path) == [".step-00000100.draft", "step-00000050"]
    assert (tmp_path / ".step-00000100.draft" / "manifest.json").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000050"


class Tied(nn.Module):
    """Two names of one weight, a buffer, and one that is no part of the state."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


def commit_model(directory: Path, model: nn.Module) -> Path:
    with saver(directory) as one:
        one.save(1, {"model": {name: whole(each) for name, each in checkpoint.tensors_of(model).items()}}, {})
    return directory / "step-00000001"


def test_a_whole_model_gets_its_weights_and_buffers(tmp_path: Path) -> None:
    trained, fresh = Tied(), Tied()
    trained.get_buffer("count").fill_(5)
    checkpoint.load_into(fresh, commit_model(tmp_path, trained))
    assert list(checkpoint.tensors_of(fresh)) == ["count", "first.weight", "first.bias"]
    assert fresh.second.weight is fresh.first.weight
    for name, values in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], values)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    path = commit_model(tmp_path, nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"another model(.|\n)*weight of shape \[3, 2\], which is \[2, 2\] here"):
        checkpoint.load_into(nn.Linear(2, 2), path)
    with pytest.raises(
        CheckpointError, match=r"another model(.|\n)*no first\.weight there(.|\n)*bias, which is not here"
    ):
        checkpoint.load_into(Tied(), path)
    with pytest.raises(CheckpointError, match=r"another model(.|\n)*no exp_avg there"):
        checkpoint.read(path, {"model": {"exp_avg": whole(torch.zeros(2))}})


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = commit(tmp_path, 1)
    checkpoint.check_identity(path, {"seed": 7})
    with pytest.raises(CheckpointError, match=r"another training run(.|\n)*seed: 7 there, 8 now"):
        checkpoint.check_identity(path, {"seed": 8})
