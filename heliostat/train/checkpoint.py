"""Checkpoints that are either whole or not there.

Commit protocol: the files go into a temporary sibling directory and reach the disk; the manifest, with their sizes and
SHA-256 digests, goes last; one atomic rename gives the directory its name, `step-00000050`. A reader trusts a manifest
whose files match it and nothing else, so a run killed at any instant leaves only checkpoints that can be trusted.

There is one writer per directory, rank 0; any number may read.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, ValidationError
from torch import nn

from heliostat.errors import CheckpointError, StoreError
from heliostat.values import Frozen

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
MODEL = "model"
"""The part of every checkpoint that holds the model's state."""


class FileRecord(Frozen):
    """One file as it was written."""

    num_bytes: NonNegativeInt
    sha256: str


class Manifest(Frozen):
    """What a committed checkpoint holds."""

    step: NonNegativeInt
    """Steps done."""
    metrics: dict[str, float]
    """Validation metrics of this step; empty between epochs."""
    identity: dict[str, Any]
    """What the run's loss curve depends on (`TrainJob.identity`)."""
    files: dict[str, FileRecord]


def commit(
    directory: Path,
    *,
    step: int,
    states: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, float],
    identity: Mapping[str, Any],
) -> Path:
    """Write the `states` (part name -> state dict) of a step and commit them; returns the committed directory.

    Raises:
        StoreError: the disk is full or not writable; what was committed before is untouched.

    """
    target = directory / f"step-{step:08d}"
    draft = directory / f".{target.name}.draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        files = {f"{part}.pt": _write_state(draft / f"{part}.pt", state) for part, state in states.items()}
        manifest = Manifest(step=step, metrics=dict(metrics), identity=dict(identity), files=files)
        _write_text(draft / MANIFEST, manifest.model_dump_json(indent=1))
        _sync(draft)
        if target.exists():  # a damaged one: a run never repeats a step that is committed
            shutil.rmtree(target)
        draft.rename(target)
        _sync(directory)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        shutil.rmtree(draft, ignore_errors=True)
        raise _cannot_write(directory, error) from error
    return target


def verify(path: str | Path) -> Manifest:
    """The manifest of a committed checkpoint, after comparing every file with it.

    Raises:
        CheckpointError: there is no manifest, or a file is missing or differs.

    """
    path = Path(path)
    manifest = _manifest(path)
    for name, record in manifest.files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != record.num_bytes or _sha256(file) != record.sha256:
            raise CheckpointError(
                "a checkpoint does not match its manifest",
                where=str(file),
                causes=("the file was changed or cut after the commit",),
                next_step="remove the directory; an older checkpoint takes its place",
            )
    return manifest


def load(path: str | Path, part: str) -> dict[str, Any]:
    """One verified part of a checkpoint, on the CPU.

    Raises:
        CheckpointError: as `verify`.

    """
    verify(path)
    state: dict[str, Any] = torch.load(Path(path) / f"{part}.pt", map_location="cpu", weights_only=True)
    return state


def load_into(model: nn.Module, path: str | Path) -> None:
    """Give `model` the weights of a checkpoint.

    Raises:
        CheckpointError: it is damaged, or the weights are another model's.

    """
    try:
        model.load_state_dict(load(path, MODEL))
    except RuntimeError as error:
        raise CheckpointError(
            "the checkpoint belongs to another model", where=str(path), got=str(error).partition("\n\t")[2]
        ) from error


def latest(directory: Path) -> Path | None:
    """The latest whole checkpoint; damaged ones on the way are logged and passed over."""
    return next(_whole(sorted(_named(directory), reverse=True)), None)


def best(directory: Path, metric: str, mode: Literal["max", "min"]) -> Path | None:
    """The whole checkpoint with the best `metric`, the earlier one of equals."""
    return next(_whole(_by_merit(directory, metric, mode)), None)


def retain(directory: Path, *, keep: int, metric: str, mode: Literal["max", "min"]) -> None:
    """Remove all committed checkpoints but the latest `keep` and the best one."""
    committed = sorted(_committed(directory))
    for path in set(committed[:-keep]) - set(_by_merit(directory, metric, mode)[:1]):
        shutil.rmtree(path)


def check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        CheckpointError: names what differs.

    """
    found = _manifest(path).identity
    differing = [name for name in identity if found.get(name) != identity[name]]
    if differing:
        raise CheckpointError(
            "the checkpoints in this directory belong to another training run",
            where=str(path),
            got="; ".join(f"{name}: {found.get(name)!r} there, {identity[name]!r} now" for name in differing),
            next_step="train into another directory, or remove this one",
        )


def _named(directory: Path) -> list[Path]:
    return [path for path in directory.glob("step-*") if path.is_dir()]


def _committed(directory: Path) -> dict[Path, Manifest]:
    """Checkpoints with a manifest; their files are not compared with it."""
    found: dict[Path, Manifest] = {}
    for path in _named(directory):
        with suppress(CheckpointError):
            found[path] = _manifest(path)
    return found


def _by_merit(directory: Path, metric: str, mode: Literal["max", "min"]) -> list[Path]:
    """Checkpoints that have the metric, the best first and the earlier one of equals."""
    values = {
        path: manifest.metrics[metric]
        for path, manifest in sorted(_committed(directory).items(), key=itemgetter(0))
        if metric in manifest.metrics
    }
    return sorted(values, key=values.__getitem__, reverse=mode == "max")


def _whole(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            verify(path)
        except CheckpointError as error:
            logger.warning("ignoring a checkpoint that is not whole\n%s", error)
        else:
            yield path


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            "a checkpoint has no manifest that can be read",
            where=str(path),
            got=str(error).partition("\n")[0],
            causes=("it was not written by this commit protocol, or was damaged since",),
        ) from error


def _write_state(path: Path, state: Mapping[str, Any]) -> FileRecord:
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(num_bytes=path.stat().st_size, sha256=_sha256(path))


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(directory: Path, error: Exception) -> StoreError:
    return StoreError(
        "a checkpoint cannot be written",
        where=str(directory),
        got=str(error).partition("\n")[0],
        causes=("the disk is full", "the directory is not writable"),
        next_step="make room or choose another store, and run again: it goes on from the last committed checkpoint",
    )
