"""A packaged model that answers rows: rows in, predictions out, by the feature code it was trained with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet
from heliostat.errors import ServingFailure
from heliostat.serve.loading import PackagedModel, load_package
from heliostat.train.evaluate import predict
from heliostat.train.task import Task

Prediction = float | list[float]
"""One row's answer: a number, or k of them."""


class ServedModel:
    """A model ready to answer rows."""

    def __init__(self, spec: PackagedModel, features: FeatureSet, task: Task, model: nn.Module) -> None:
        self.spec = spec
        self.features = features
        self._task = task
        self._model = model

    @classmethod
    def load(cls, path: Path, *, dedicated: bool = False) -> Self:
        """The model of the package at `path`; see `load_package` for `dedicated`.

        Raises:
            ServingFailure: there is no package, its parts do not fit together, or it has no feature set.
            ReferenceNotFound: its code does not import.
        """
        loaded = load_package(path, dedicated=dedicated)
        if not isinstance(loaded.features, FeatureSet):
            raise ServingFailure(
                f"{loaded.spec.features} is not a FeatureSet", where=str(path), got=type(loaded.features).__name__
            )
        return cls(loaded.spec, loaded.features, loaded.task, loaded.model)

    @property
    def inputs(self) -> tuple[InputColumn, ...]:
        """What a row consists of."""
        return self.features.inputs

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
