"""Child processes: known by pid and start time, stopped with their children."""

import os
import sys
import time
from pathlib import Path

import psutil

from heliostat.cluster.process import spawn

PARENT = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"


def wait_for_line(log: Path) -> str:
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.02)
    return log.read_text()


def test_stopping_ends_the_process_and_its_children(tmp_path: Path) -> None:
    process = spawn("sleeper", [sys.executable, "-c", PARENT], env={}, log=tmp_path / "log")
    child = int(wait_for_line(tmp_path / "log"))
    assert process.alive()
    process.stop(grace_s=2)
    assert not process.alive()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    process.stop()


def test_a_recycled_pid_is_not_taken_for_ours(tmp_path: Path) -> None:
    process = spawn("sleeper", ["sleep", "60"], env={}, log=tmp_path / "log")
    earlier = process.model_copy(update={"started": process.started - 100})
    assert not earlier.alive()
    earlier.stop()
    assert process.alive()
    process.stop()


def test_a_process_of_ours_has_its_own_session(tmp_path: Path) -> None:
    process = spawn("sleeper", ["sleep", "60"], env={"X": "1"}, log=tmp_path / "log")
    assert os.getsid(process.pid) == process.pid
    process.stop()
