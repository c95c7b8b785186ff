import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from heliostat.errors import CheckpointError, StoreError
from heliostat.train import checkpoint


def commit(directory: Path, step: int, **metrics: float) -> Path:
    states: dict[str, dict[str, Any]] = {"model": {"weight": torch.full((4,), float(step))}, "optimizer": {"state": {}}}
    return checkpoint.commit(directory, step=step, states=states, metrics=metrics, identity={"seed": 7})


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
    assert path.name == "step-00000050"
    assert checkpoint.latest(tmp_path) == path
    manifest = checkpoint.verify(path)
    assert (manifest.step, manifest.metrics, manifest.identity) == (50, {"auc": 0.7}, {"seed": 7})
    assert set(manifest.files) == {"model.pt", "optimizer.pt"}
    assert checkpoint.load(path, "model")["weight"].tolist() == [50.0] * 4
    assert names(tmp_path) == ["step-00000050"]


def test_nothing_committed_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None
    assert checkpoint.best(tmp_path, "auc", "max") is None


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "cut file", "changed file", "missing file"])
def test_damage_is_seen_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    good, bad = commit(tmp_path, 50, auc=0.7), commit(tmp_path, 100, auc=0.8)
    manifest, model = bad / "manifest.json", bad / "model.pt"
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
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.load(bad, "model")
    assert checkpoint.verify(commit(tmp_path, 100, auc=0.9)).metrics == {"auc": 0.9}


def test_a_draft_is_no_checkpoint_and_is_written_anew(tmp_path: Path) -> None:
    draft = tmp_path / ".step-00000050.draft"
    draft.mkdir()
    (draft / "model.pt").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) is None
    commit(tmp_path, 50)
    assert names(tmp_path) == ["step-00000050"]


def test_the_best_is_by_metric_and_mode_and_the_earlier_of_equals(tmp_path: Path) -> None:
    for step, auc in [(1, 0.5), (2, 0.9), (3, 0.9), (4, 0.1)]:
        commit(tmp_path, step, auc=auc)
    commit(tmp_path, 5)
    assert checkpoint.best(tmp_path, "auc", "max") == tmp_path / "step-00000002"
    assert checkpoint.best(tmp_path, "auc", "min") == tmp_path / "step-00000004"
    assert checkpoint.best(tmp_path, "loss", "min") is None


def test_retention_keeps_the_latest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        commit(tmp_path, step, auc=1 / step)
    (tmp_path / "step-00000009").mkdir()
    checkpoint.retain(tmp_path, keep=2, metric="auc", mode="max")
    assert names(tmp_path) == [f"step-0000000{step}" for step in (1, 5, 6, 9)]


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    good = commit(tmp_path, 50)
    with no_file_larger_than(512), pytest.raises(StoreError, match=r"cannot be written(.|\n)*the disk is full"):
        commit(tmp_path, 100)
    assert checkpoint.latest(tmp_path) == good
    assert names(tmp_path) == ["step-00000050"]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="Not a directory"):
        commit(tmp_path / "file" / "checkpoints", 1)


def test_a_crash_before_the_rename_leaves_nothing_that_looks_committed(tmp_path: Path) -> None:
    commit(tmp_path, 50)
    pid = os.fork()
    if pid == 0:  # die between the manifest and the rename
        Path.rename = lambda *_: os._exit(9)  # type: ignore[method-assign]
        commit(tmp_path, 100)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert names(tmp_path) == [".step-00000100.draft", "step-00000050"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000050"


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = commit(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"another model(.|\n)*weight"):
        checkpoint.load_into(nn.Linear(2, 2), path)
