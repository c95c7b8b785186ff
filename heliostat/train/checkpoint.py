"""Checkpoints that are either whole or not there.

Commit protocol: the files go into a temporary sibling directory and reach the disk; the manifest, with their sizes and
SHA-256 digests, goes last; one atomic rename gives the directory its name, `step-00000050`. A reader trusts a manifest
whose files match it and nothing else, so a run killed at any instant leaves only checkpoints that can be trusted.

Every part of the state, such as the model, is a directory in torch's format for distributed checkpoints, whatever plan
wrote it; any plan reads it. This module reads; `heliostat.train.checkpointer` writes.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, ValidationError
from torch import Tensor, nn

from heliostat.errors import CheckpointError
from heliostat.train.pieces import Held, whole
from heliostat.train.sharded.read import Stored
from heliostat.values import Frozen, digest

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
MODEL = "model"
"""The part of every checkpoint that holds the model's parameters and buffers, each tensor by the first of its names."""
OPTIMIZER = "optimizer"
"""The part that holds the optimizer's state; its step is the checkpoint's."""


class FileRecord(Frozen):
    """One file as it was written."""

    num_bytes: NonNegativeInt
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Of a file as it is now."""
        with path.open("rb") as file:
            return cls(num_bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class Manifest(Frozen):
    """What a committed checkpoint holds."""

    step: NonNegativeInt
    """Steps done."""
    metrics: dict[str, float]
    """Validation metrics of this step; empty between epochs."""
    identity: dict[str, Any]
    """What the run's loss curve depends on (`TrainJob.identity`)."""
    tied: dict[str, str]
    """Further name -> name in the checkpoint, of tensors of the model that have several names."""
    files: dict[str, FileRecord]
    """By path in the checkpoint."""


def verify(path: str | Path) -> Manifest:
    """The manifest of a committed checkpoint, after comparing every file with it.

    Raises:
        CheckpointError: there is no manifest, or a file is missing or differs.

    """
    path = Path(path)
    manifest = _manifest(path)
    for name, record in manifest.files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != record.num_bytes or FileRecord.of(file) != record:
            raise CheckpointError(
                "a checkpoint does not match its manifest",
                where=str(file),
                causes=("the file was changed or cut after the commit",),
                next_step="remove the directory; an older checkpoint takes its place",
            )
    return manifest


def weights_digest(path: str | Path) -> str:
    """One digest of the model's files in a committed checkpoint, after verifying it.

    Raises:
        CheckpointError: as `verify`.

    """
    return digest({name: record for name, record in verify(path).files.items() if name.startswith(f"{MODEL}/")})


def read(path: str | Path, states: Mapping[str, Mapping[str, Held]]) -> Manifest:
    """Read what a rank holds of each part, in place, from a checkpoint that was verified; its manifest.

    Args:
        path: as `latest` and `best` give it.
        states: part name -> tensor name -> what this rank holds of it. Reading needs no other rank.

    Raises:
        CheckpointError: it is not there, or in another shape.

    """
    path = Path(path)
    manifest = _manifest(path)
    for part, state in states.items():
        stored = Stored(path / part)
        _check_fit(path, state, stored.shapes, complete=False)
        stored.read(state)
    return manifest


def load_into(model: nn.Module, path: str | Path) -> None:
    """Give a whole `model` the parameters and buffers of a checkpoint.

    Raises:
        CheckpointError: it is damaged, or the weights are another model's.

    """
    verify(path)
    state = {name: whole(tensor) for name, tensor in tensors_of(model).items()}
    stored = Stored(Path(path) / MODEL)
    _check_fit(path, state, stored.shapes, complete=True)
    stored.read(state)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of `model`, each by the first of its names."""
    first: dict[int, str] = {}
    named = ((name, one) for name, one in model.state_dict(keep_vars=True).items() if isinstance(one, Tensor))
    return {name: one for name, one in named if first.setdefault(id(one), name) == name}


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


def _check_fit(
    path: str | Path, state: Mapping[str, Held], shapes: Mapping[str, tuple[int, ...]], *, complete: bool
) -> None:
    found = [f"no {name} there" for name in state if name not in shapes]
    found += [f"{name}, which is not here" for name in shapes if complete and name not in state]
    found += [
        f"{name} of shape {list(shapes[name])}, which is {list(held.shape)} here"
        for name, held in state.items()
        if shapes.get(name, held.shape) != held.shape
    ]
    if found:
        raise CheckpointError("the checkpoint belongs to another model", where=str(path), got="; ".join(found))


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
