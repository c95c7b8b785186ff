"""A packaged model, loaded: rows in, predictions out, by the feature code it was trained with.

A package is a directory that stands alone: `model.json` (what it is), `weights.pt`, and `code/`, a copy of the user's
source files. Editing a feature function after training changes the next model, not the one that is served.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from heliostat.data.columns import Columns
from heliostat.data.features import FeatureSet
from heliostat.data.versions import DatasetVersion
from heliostat.errors import ServingFailure
from heliostat.references import resolve
from heliostat.train.evaluate import predict
from heliostat.train.task import Task, make_task
from heliostat.values import Frozen

SPEC = "model.json"
WEIGHTS = "weights.pt"
CODE = "code"
"""What a package consists of."""

Prediction = float | list[float]
"""One row's answer: a number, or k of them."""


class PackagedModel(Frozen):
    """What a package is, as `model.json` says it."""

    task: str
    """`module:attr`; the module is in `code/`, or installed."""
    params: dict[str, Any]
    features: str
    """`module:attr` of the FeatureSet."""
    data: DatasetVersion
    modules: tuple[str, ...]
    """Dotted names of all modules in `code/`."""


class ServedModel:
    """A model ready to answer: in evaluation mode, without gradients, on the CPU."""

    def __init__(self, spec: PackagedModel, features: FeatureSet, task: Task, model: nn.Module) -> None:
        self.spec = spec
        self.features = features
        self._task = task
        self._model = model.eval().requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, path: Path, *, dedicated: bool = False) -> Self:
        """The model of the package at `path`.

        In a process that is `dedicated` to it the packaged modules stay imported, so that the user's functions can
        import more of them when they are called. Elsewhere nothing of this is left behind.

        Raises:
            ServingFailure: there is no package, or its parts do not fit together.
            ReferenceNotFound: its code does not import.
        """
        spec = _read_spec(path)
        with _importing_from(path / CODE, spec.modules, stay=dedicated):
            features = resolve(spec.features)
            task = make_task(spec.task, spec.data, spec.params)
            model = task.model()
        if not isinstance(features, FeatureSet):
            raise ServingFailure(f"{spec.features} is not a FeatureSet", where=str(path), got=type(features).__name__)
        _load_weights(model, path / WEIGHTS)
        return cls(spec, features, task, model)

    def predict(self, rows: Sequence[Mapping[str, object]]) -> list[Prediction]:
        """Answer JSON rows of the feature set's inputs.

        Raises:
            DataError: a row lacks a field or holds one of another type.
            ServingFailure: an answer is not a finite number.
        """
        answers: list[Prediction] = self.predict_columns(self.features.columns_of(rows)).tolist()
        return answers

    def predict_columns(self, columns: Columns) -> NDArray[np.float64]:
        """Answer n rows given as columns of the feature set's inputs: (n,) or (n, k).

        Raises:
            DataError: an input column is missing.
            ServingFailure: an answer is not a finite number.
        """
        arrays = self._task.arrays(self.features.compute(columns))
        answers = predict(self._task, self._model, arrays).astype(np.float64)
        if not np.isfinite(answers).all():
            row = int(np.flatnonzero(~np.isfinite(answers).reshape(len(answers), -1).all(axis=1))[0])
            raise ServingFailure("the model's answer is not a finite number", where=f"row {row}", got=str(answers[row]))
        return answers


def _read_spec(path: Path) -> PackagedModel:
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
