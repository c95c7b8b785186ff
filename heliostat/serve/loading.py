"""A packaged model as parts: what it says it is, and its task, feature set and weights, loaded.

A package is a directory that stands alone: `model.json` (what it is), `weights.pt`, `code/`, a copy of the user's
source files, and `data/`, the files of the dataset version. Editing a feature function after training changes the next
model, not the one that is served.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from heliostat.data.versions import DatasetVersion
from heliostat.errors import ServingFailure
from heliostat.references import resolve
from heliostat.train.task import Task, make_task
from heliostat.values import Frozen

SPEC = "model.json"
WEIGHTS = "weights.pt"
CODE = "code"
DATA = "data"
"""What a package consists of."""


class PackagedModel(Frozen):
    """What a package is, as `model.json` says it."""

    task: str
    """`module:attr`; the module is in `code/`, or installed."""
    params: dict[str, Any]
    features: str | None
    """`module:attr` of the FeatureSet; None for a model that continues texts."""
    data: DatasetVersion
    modules: tuple[str, ...]
    """Dotted names of all modules in `code/`."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The parts of a package."""

    spec: PackagedModel
    features: object
    task: Task
    model: nn.Module
    """In evaluation mode, without gradients, on the CPU."""


def load_package(path: Path, *, dedicated: bool) -> Loaded:
    """The parts of the package at `path`.

    In a process that is `dedicated` to it the packaged modules stay imported, so that the user's functions can import
    more of them when they are called. Elsewhere nothing of this is left behind.

    Raises:
        ServingFailure: there is no package, or its parts do not fit together.
        ReferenceNotFound: its code does not import.
    """
    spec = read_spec(path)
    data = spec.data.with_files_at(str(path / DATA))
    with _importing_from(path / CODE, spec.modules, stay=dedicated):
        features = None if spec.features is None else resolve(spec.features)
        task = make_task(spec.task, data, spec.params)
        model = task.model()
    _load_weights(model, path / WEIGHTS)
    return Loaded(spec=spec, features=features, task=task, model=model.eval().requires_grad_(requires_grad=False))


def read_spec(path: Path) -> PackagedModel:
    """What the package at `path` says it is.

    Raises:
        ServingFailure: there is no package.
    """
    try:
        return PackagedModel.model_validate_json((path / SPEC).read_bytes())
    except (OSError, ValidationError) as error:
        raise ServingFailure(
            "this is not a model package",
            where=str(path),
            got=str(error).splitlines()[0],
            causes=("it was removed, or was never completely written", "it was made by another version of Heliostat"),
            next_step="register the model again: heliostat run",
        ) from error


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise ServingFailure(
            "the weights do not fit the model",
            where=str(path),
            got=str(error),
            causes=("the package was not completely written", "the task builds another model than it did in training"),
            next_step="register the model again: heliostat run",
        ) from error


@contextmanager
def _importing_from(code: Path, modules: Sequence[str], *, stay: bool) -> Iterator[None]:
    """Import from `code`, whatever this process has imported under the same names.

    Unless the packaged modules are to `stay`, what was there comes back afterwards: a process that trained the model
    has the working tree's modules, and the packaged ones live on only through the objects made from them.
    """
    hidden = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if not stay:
            sys.path.remove(str(code))
            for name in modules:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)
