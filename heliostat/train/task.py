"""What the user writes: a single-device program with nothing about distribution in it.

    class Digits(heliostat.Task):
        def __init__(self, data, width: int = 64):
            super().__init__(data)
            self.width = width

        def model(self): ...
        def loss(self, model, batch): ...        # (sum of the losses, how many there were)
        def predict(self, model, batch): ...
        def metrics(self, predictions, labels): ...

The loss contract is what makes uneven shares, uneven micro-batches and resumes exact. Gradients are summed over
micro-batches and ranks and divided once, by the global count; a mean per micro-batch would weigh samples unevenly.
"""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from heliostat.errors import UserError
from heliostat.references import did_you_mean, resolve

if TYPE_CHECKING:  # a model trains without what stores its data
    from heliostat.data.columns import Columns
    from heliostat.data.versions import DatasetVersion

Arrays = dict[str, NDArray[Any]]
"""Name -> array (n, ...): all rows of a split, as the model takes them."""

Batch = Mapping[str, Tensor]
"""Name -> tensor (b, ...): the same names as in `Arrays`, some of the rows."""


Tensors = Mapping[str, Tensor]
"""`Arrays` as torch holds them."""


class Task(ABC):
    """A model, its loss, and how it is judged, on one device.

    Override `model`, `loss`, `predict` and `metrics`. Parameters are keyword arguments of `__init__` with types and
    defaults; the experiment's `train.params` sets them. All four methods are pure: a task keeps no state between calls.
    """

    def __init__(self, data: "DatasetVersion") -> None:
        self.data = data

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with its initial parameters, drawn from torch's global generator."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The sum of the losses over the batch (a scalar), and their number, or their total weight."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """One prediction per row: (b,) or (b, k). The model is in evaluation mode and gradients are off."""

    @abstractmethod
    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """What `predictions` (n,) or (n, k) are worth against `labels` (n,); every value a finite number."""

    def tensor_rules(self) -> Mapping[str, int | None]:
        """How tensor parallelism treats parameters, beside or against what follows from the model's structure.

        Pattern of parameter paths, as `layers.*.weight` -> the dimension to divide, or None for a whole parameter; of
        several patterns that fit the last one counts.
        """
        return {}

    def arrays(self, columns: "Columns") -> Arrays:
        """Feature columns as the model takes them: `numeric` (n, F), `categorical` (n, C), `label` (n,) if there."""
        arrays = self.data.encoder.encode(columns)
        if self.data.label is not None and self.data.label in columns:
            arrays["label"] = columns[self.data.label].astype(np.float32)
        return arrays

    def load(self, split: str) -> Arrays:
        """All rows of `train`, `validation` or `test`; `label` is what `metrics` judges predictions against.

        Without features it is the columns as they were prepared. A task that wants them otherwise overrides this.
        """
        if self.data.label is None:
            return dict(_columns(_Versioned(self.data), split, tuple(self.data.column_types)))
        encoder = self.data.encoder
        numeric = [scale.name for scale in encoder.numeric]
        categorical = [vocabulary.name for vocabulary in encoder.categorical]
        return self.arrays(_columns(_Versioned(self.data), split, (*numeric, *categorical, self.data.label)))

    def baselines(self, train: Arrays, test: Arrays) -> dict[str, NDArray[Any]]:
        """Name -> predictions for the rows of `test` of models so simple that this one should beat them.

        By default, with features and a binary label: logistic regression and the class prior. Otherwise none.
        """
        if self.data.label is None:
            return {}
        from heliostat.train.baselines import class_prior, logistic_regression

        return {
            "logistic regression": logistic_regression(train, test, self.data.encoder.cardinalities),
            "class prior": class_prior(train, len(test["label"])),
        }


def make_task(reference: str, data: "DatasetVersion", params: Mapping[str, Any]) -> Task:
    """The task that `reference` names, with `params`.

    Raises:
        ReferenceNotFound: the reference does not resolve.
        UserError: it is not a Task, or a parameter is unknown or of the wrong type.

    """
    found = resolve(reference)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"{reference} is not a Task", got=repr(found), next_step="subclass heliostat.Task")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{found.__name__} lacks {missing}", where=reference, next_step=f"write {missing}")
    return found(data, **_checked_params(found, params))


def _checked_params(task: type[Task], params: Mapping[str, Any]) -> dict[str, Any]:
    hints = {} if task.__init__ is Task.__init__ else get_type_hints(task.__init__)
    known = [name for name in inspect.signature(task).parameters if name != "data"]
    unknown = [name for name in params if name not in known]
    if unknown:
        raise UserError(
            f"{task.__name__} has no parameter '{unknown[0]}'{did_you_mean(unknown[0], known)}",
            where="train.params",
            next_step=f"choose among: {', '.join(known) or 'none'}",
        )
    return {name: _typed(task, name, value, hints.get(name, Any)) for name, value in params.items()}


def _typed(task: type[Task], name: str, value: object, hint: Any) -> Any:
    """`value` as its annotation says; through JSON, so that a YAML list may fill a tuple and nothing else is bent."""
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise UserError(
            f"parameter '{name}' of {task.__name__}: {error.errors()[0]['msg']}",
            where=f"train.params.{name}",
            got=repr(value),
        ) from error


class _Versioned:
    """A dataset version as a cache key: one version of one table is always the same rows."""

    def __init__(self, data: "DatasetVersion") -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Versioned) and self.data.uri == other.data.uri and self.data.id == other.data.id

    def __hash__(self) -> int:
        return hash((self.data.uri, self.data.id))


@lru_cache(maxsize=4)
def _columns(versioned: _Versioned, split: str, names: tuple[str, ...]) -> "Columns":
    """Columns of a split, kept: the trials of a sweep share one process and read the table once."""
    from heliostat.data.versions import load_columns

    return load_columns(versioned.data, split, names)
