"""The store on disk: one record for each step and key, one directory for each to work in, one run at a time.

    <root>/lock                               held while a run goes on; the system lets go of it when the process dies
    <root>/records/<experiment>/<step>/<key>.json
    <root>/work/<step>/<key>/

A record appears whole or not at all. One that cannot be read counts as absent, and costs a run of its step.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from heliostat.errors import StoreError
from heliostat.experiment.key import StepKey
from heliostat.experiment.step import StepResult
from heliostat.files import write_whole
from heliostat.values import Frozen, plain

_CAUSES = {
    errno.EACCES: "the directory belongs to another user",
    errno.EPERM: "the directory belongs to another user",
    errno.EROFS: "the disk is mounted read-only",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a file has this name",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on this disk is used up",
}
_NEXT = "make it writable and give it space, or choose another directory with --set store=DIR"


class Record(Frozen):
    """A step that finished: what its result depended on, the result, and how it came about."""

    experiment: str
    step: str
    key: StepKey
    result: StepResult
    reasons: tuple[str, ...]
    created: str
    """ISO 8601, UTC."""
    wall_s: float


@dataclass(frozen=True)
class Store:
    """The directory where Heliostat keeps what it made."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> "Store":
        """The store at `root`, created when there is none.

        Raises:
            StoreError: it cannot be written.
        """
        store = cls(root.absolute())
        with _explained(store.root):
            (store.root / "records").mkdir(parents=True, exist_ok=True)
            (store.root / "work").mkdir(exist_ok=True)
            with TemporaryFile(dir=store.root):
                pass
        return store

    @contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold the store for one run; `purpose` says which, to whoever comes next.

        Raises:
            StoreError: another run holds it; the message says who.
        """
        path = self.root / "lock"
        with _explained(path):
            file = path.open("a+", encoding="utf-8")
        with file:
            _acquire(file)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "purpose": purpose}
            _replace_text(file, json.dumps(holder))
            try:
                yield
            finally:
                _replace_text(file, "")

    def find(self, experiment: str, step: str, key: str) -> Record | None:
        """The record of `step` under the digest `key`, if there is one.

        Raises:
            StoreError: there is one that cannot be read.
        """
        path = self._folder(experiment, step) / f"{key}.json"
        return _read(path) if path.exists() else None

    def latest(self, experiment: str, step: str) -> Record | None:
        """The readable record of `step` that was saved or used last."""
        paths = self._folder(experiment, step).glob("*.json")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            try:
                return _read(path)
            except StoreError:
                continue
        return None

    def save(self, record: Record) -> None:
        """Write a record; it is there whole, or, when this raises, not at all.

        Raises:
            StoreError: the store cannot be written.
        """
        folder = self._folder(record.experiment, record.step)
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{record.key.digest}.json", json.dumps(plain(record), indent=1))

    def touch(self, record: Record) -> None:
        """Note that a record was used again: it is now the latest of its step."""
        path = self._folder(record.experiment, record.step) / f"{record.key.digest}.json"
        with _explained(path):
            path.touch()

    def workdir(self, step: str, key: str) -> Path:
        """The directory in which `step` works under the digest `key`; what an earlier attempt left is still there.

        Raises:
            StoreError: it cannot be made.
        """
        path = self.root / "work" / step / key
        with _explained(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def _folder(self, experiment: str, step: str) -> Path:
        return self.root / "records" / experiment / step


def now() -> str:
    """The time, as records and locks tell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0)
        raise StoreError(
            "the store cannot be written",
            where=str(error.filename or path),
            got=f"{type(error).__name__}: {error.strerror}",
            causes=[cause] if cause else [],
            next_step=_NEXT,
        ) from error


def _read(path: Path) -> Record:
    try:
        record = Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StoreError("a record cannot be read", where=str(path), got=str(error).partition("\n")[0]) from error
    if record.key.digest != path.stem:
        raise StoreError("a record cannot be read", where=str(path), got="content that does not match its name")
    return record


def _acquire(file: IO[str]) -> None:
    with _explained(Path(file.name)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(file) from None


def _in_use(file: IO[str]) -> StoreError:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        got = "pid {pid} on {host}, since {since}: {purpose}".format(**holder)
    except ValueError:
        got = "a process that has just taken it"
    return StoreError(
        "another run is using this store",
        where=str(Path(file.name).parent),
        got=got,
        next_step="wait for it, stop it, or give this run a store of its own with --set store=DIR",
    )


def _replace_text(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
