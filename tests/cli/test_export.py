"""`heliostat export`."""

import json
from pathlib import Path

import pytest
import torch

from heliostat.cli import invoke
from heliostat.train.checkpointer import Checkpointer, Retention
from heliostat.train.pieces import whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    retention = Retention(1, "auc", "max")
    with Checkpointer(tmp_path / "run", identity={}, tied={"head": "embed"}, retention=retention) as saver:
        saver.save(50, {"model": {"embed": whole(torch.ones(300, 4))}}, {})
    return tmp_path / "run" / "step-00000050"


def test_it_says_what_it_wrote(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.safetensors"
    assert invoke(["export", str(path), "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"1,200 numbers in 1 tensors of step 50, to {file}\n  head is embed\n"
    assert file.stat().st_size > 4 * 1200


def test_json_for_scripts(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.pt"
    assert invoke(["export", str(path), "--out", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "checkpoint": str(path),
        "step": 50,
        "file": str(file),
        "num_bytes": file.stat().st_size,
        "num_tensors": 1,
        "num_parameters": 1200,
        "tied": {"head": "embed"},
    }


def test_a_directory_of_checkpoints_is_not_one(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["export", str(path.parent), "--out", str(tmp_path / "weights.pt")]) == 1
    assert "no manifest" in capsys.readouterr().err
