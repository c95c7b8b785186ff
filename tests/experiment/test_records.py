"""The store on disk: whole records or none, one run at a time, and what it says when it cannot be used."""

import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.experiment.environment import EnvironmentLock
from heliostat.experiment.fingerprint import CodeFingerprint
from heliostat.experiment.key import StepKey
from heliostat.experiment.records import Record, Store, now
from heliostat.experiment.step import Artifact, StepResult

CODE = CodeFingerprint(symbols={}, distributions={}, modules={})
LOCK = EnvironmentLock(python="3.11", machine="x86_64", distributions={})


def record(lr: float = 0.1, *, experiment: str = "flights", outputs: dict[str, object] | None = None) -> Record:
    return Record(
        experiment=experiment,
        step="train",
        key=StepKey(code=CODE, options={"lr": lr}, inputs={}, facts={}, environment=LOCK),
        result=StepResult(
            outputs=outputs or {"lr": lr},
            artifacts=(Artifact(kind="checkpoint", uri="/c", digest="1"),),
            metrics={"auc": math.nan, "loss": 0.1},
        ),
        reasons=("first run",),
        created=now(),
        wall_s=1.5,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def file_of(store: Store, saved: Record) -> Path:
    return store.root / "records" / saved.experiment / saved.step / f"{saved.key.digest}.json"


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    saved = record()
    store.save(saved)
    found = store.find("flights", "train", saved.key.digest)
    assert found is not None
    assert found.model_dump_json() == saved.model_dump_json()
    assert math.isnan(found.result.metrics["auc"])
    assert found.result.digest == saved.result.digest


def test_no_record(store: Store) -> None:
    assert store.find("flights", "train", "0" * 16) is None
    assert store.latest("flights", "train") is None


def test_records_belong_to_one_experiment_and_step(store: Store) -> None:
    saved = record(experiment="other")
    store.save(saved)
    assert store.find("flights", "train", saved.key.digest) is None
    assert store.latest("other", "data") is None


def test_the_latest_is_the_one_saved_or_used_last(store: Store) -> None:
    first, second = record(0.1), record(0.2)
    for age_s, saved in ((20, first), (10, second)):
        store.save(saved)
        os.utime(file_of(store, saved), ns=(0, time.time_ns() - age_s * 10**9))
    assert latest_lr(store) == 0.2
    store.touch(first)
    assert latest_lr(store) == 0.1


def latest_lr(store: Store) -> float:
    found = store.latest("flights", "train")
    assert found is not None
    return float(found.key.options["lr"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[:0],
        lambda text: text[:0] + "null",
        lambda text: text.replace('"lr": 0.1', '"lr": 0.2', 1),
        lambda text: text.replace('"wall_s"', '"wall"'),
        lambda text: "\udcff" + text,
    ],
)
def test_a_damaged_record_is_told_and_not_the_latest(store: Store, damage: Callable[[str], str]) -> None:
    older, damaged = record(0.3), record(0.1)
    store.save(older)
    store.save(damaged)
    path = file_of(store, damaged)
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match="cannot be read") as caught:
        store.find("flights", "train", damaged.key.digest)
    assert caught.value.where == str(path)
    assert latest_lr(store) == 0.3


def test_a_write_that_fails_leaves_the_old_record_and_no_rest(store: Store) -> None:
    saved = record()
    store.save(saved)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            store.save(record(outputs={"lr": "x" * 100_000}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    found = store.find("flights", "train", saved.key.digest)
    assert found is not None
    assert found.result.outputs == {"lr": 0.1}
    assert [path.name for path in file_of(store, saved).parent.iterdir()] == [f"{saved.key.digest}.json"]


FILL = """
import sys
from pathlib import Path
from heliostat.experiment.records import Store
store = Store.open(Path(sys.argv[1]))
for number in range(99):
    store.workdir("train", str(number))
"""


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own")
    script = f'mount -t tmpfs -o nr_inodes=9 tmpfs {tmp_path} && exec "$@"'
    command = [unshare, "-rm", "sh", "-c", script, "sh", sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "StoreError: the store cannot be written" in done.stderr
    assert "likely cause: the disk is full" in done.stderr


@pytest.mark.parametrize(
    ("below", "cause"), [("file", "a part of the path is a file"), ("/proc/nowhere", None)], ids=["a file", "proc"]
)
def test_a_path_that_cannot_be_written(tmp_path: Path, below: str, cause: str | None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Store.open(tmp_path / below / "store")
    error = caught.value
    assert below in str(error.where)
    assert error.causes == ((cause,) if cause else ())
    assert "--set store=DIR" in str(error)


def test_opening_leaves_nothing_behind_and_may_be_repeated(store: Store) -> None:
    Store.open(store.root)
    assert sorted(path.name for path in store.root.iterdir()) == ["records", "work"]


def test_a_workdir_stays(store: Store) -> None:
    (store.workdir("train", "abc") / "half").write_text("x")
    assert (store.workdir("train", "abc") / "half").read_text() == "x"


HOLD = """
import sys, time
from pathlib import Path
from heliostat.experiment.records import Store
with Store.open(Path(sys.argv[1])).lock("heliostat run flights.yaml"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_run_is_told_who_holds_the_store(store: Store) -> None:
    with holder(store) as process, pytest.raises(StoreError, match="another run") as caught, store.lock("mine"):
        pass
    got = str(caught.value.got)
    assert got.startswith(f"pid {process.pid} on {os.uname().nodename}, since 20")
    assert got.endswith(": heliostat run flights.yaml")


def test_a_killed_holder_lets_go(store: Store) -> None:
    with holder(store) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with store.lock("mine"):
            assert '"purpose": "mine"' in (store.root / "lock").read_text()


def test_a_lock_is_let_go_in_the_end(store: Store) -> None:
    for _ in range(2):
        with store.lock("mine"):
            pass
    with pytest.raises(RuntimeError), store.lock("mine"):
        raise RuntimeError
    with store.lock("mine"):
        pass


def test_one_process_cannot_hold_it_twice(store: Store) -> None:
    with (
        store.lock("first"),
        pytest.raises(StoreError, match=f"pid {os.getpid()} on .*: first"),
        store.lock("second"),
    ):
        pass
