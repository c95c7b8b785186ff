"""A checkpoint before it is committed: a directory that no reader looks at, and how it becomes one that they trust."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heliostat.errors import StoreError
from heliostat.train.checkpoint import MANIFEST, Manifest

GO_ON = "make room or choose another store, and run again: it goes on from the last committed checkpoint"


def draft_of(directory: Path, step: int) -> Path:
    """Where the files of a step are written."""
    return directory / f".{_name(step)}.draft"


def discard_all(directory: Path) -> None:
    """Remove what runs that were killed have left; one run at a time writes to a directory."""
    for path in directory.glob(".step-*.draft"):
        shutil.rmtree(path)


def commit(directory: Path, manifest: Manifest) -> Path:
    """Give the draft of a step its manifest and its name, when all its files have reached the disk.

    Raises:
        OSError: the disk is full or not writable.

    """
    draft, target = draft_of(directory, manifest.step), directory / _name(manifest.step)
    with (draft / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    for folder in {(draft / name).parent for name in manifest.files} | {draft}:
        _sync(folder)
    if target.exists():  # a damaged one: a run never repeats a step that is committed
        shutil.rmtree(target)
    draft.rename(target)
    _sync(directory)
    return target


@contextmanager
def writing_to(place: Path, what: str = "a checkpoint", next_step: str = GO_ON) -> Iterator[None]:
    """Say what it means when a `with` block cannot write.

    Raises:
        StoreError: in place of the system's error; torch turns that of a failed write into a RuntimeError.

    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        if reason is None:
            raise
        raise StoreError(
            f"{what} cannot be written",
            where=str(place),
            got=str(reason),
            causes=("the disk is full", "the directory is not there or not writable"),
            next_step=next_step,
        ) from error


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sync(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
