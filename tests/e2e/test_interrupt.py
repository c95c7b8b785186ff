"""Ctrl-C stops everything and loses nothing; a second run on the same store is refused."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from heliostat.train import telemetry
from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

SLOW = ("--set", "train.params.pause_s=0.3", "--set", "tune.trials=1", "--set", "tune.epochs=1")


def wait_for_checkpoint(store: Path) -> None:
    for _ in range(1200):
        if any(store.glob("work/train/*/checkpoints/step-*")):
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint was committed in two minutes")


def test_ctrl_c_in_training_and_the_next_run_goes_on(project: Project) -> None:
    store = project.directory / ".heliostat"
    process = project.start("run", "experiment.yaml", *SLOW)
    wait_for_checkpoint(store)

    refused = project.call("run", "experiment.yaml", exit_code=2)
    assert "another run is using this store" in refused
    assert f"pid {process.pid}" in refused

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert project.processes() == []
    assert project.call("status") == "nothing is up\n"

    process = project.start("run", "experiment.yaml", *SLOW)
    output = read_until(process, "> tune")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert project.processes() == []
    assert "= data" in output
    assert "= plan" in output
    attempts = [
        record
        for file in store.glob("work/train/*/telemetry/rank-0.jsonl")
        for record in telemetry.read(file)
        if isinstance(record, telemetry.AttemptRecord)
    ]
    assert [record.step >= 5 for record in attempts] == [False, True]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What `process` prints, up to the line that begins with `text`."""
    output = ""
    assert process.stdout is not None
    for line in process.stdout:
        output += line
        if line.startswith(text):
            return output
    raise AssertionError(output)
