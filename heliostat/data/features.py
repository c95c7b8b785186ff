"""One definition of the features, run by the data step over blocks and by the server over one request.

The definition is numpy code on columns. A model sees the same values in training and behind HTTP because the same code
makes them: there is no second implementation that could drift.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Columns, InputColumn, Kind, as_column, missing_column, num_rows
from heliostat.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """What the model eats, and how it is computed from raw input columns.

    `transform` takes the input columns and returns the feature columns. It is row-wise and stateless: row i of its
    result depends on row i of the inputs alone, whatever else is in the batch.

    Raises:
        DataError: a name is used twice, among the inputs, among the features, or between them.
    """

    inputs: tuple[InputColumn, ...]
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    transform: Callable[[Columns], Columns]

    def __post_init__(self) -> None:
        names = [*(column.name for column in self.inputs), *self.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"a column name stands for two things: {', '.join(twice)}",
                where=_where(self.transform),
                causes=["a feature is called like an input column, and the dataset stores both"],
                next_step="give the feature another name",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All features, numeric ones first."""
        return (*self.numeric, *self.categorical)

    def kind(self, feature: str) -> Kind:
        """The storage type of a feature: `string` when it is categorical, else `number`."""
        return "string" if feature in self.categorical else "number"

    def compute(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """The features of n rows: float64 (n,) for numeric ones, objects (n,) of str or None for categorical ones.

        `transform` sees the inputs and no other column.

        Raises:
            DataError: an input is missing; `transform` asks for a column that is no input, returns too few columns, or
                columns of another length.
        """
        inputs = {column.name: self._input(columns, column.name) for column in self.inputs}
        outputs = self._transform(inputs)
        features = {name: as_column(self._output(outputs, name), self.kind(name)) for name in self.names}
        expected = num_rows(inputs)
        wrong = {name: len(values) for name, values in features.items() if len(values) != expected}
        if wrong:
            raise self._error(f"the features changed the number of rows: {expected} went in", got=str(wrong))
        return features

    def check(self, columns: Columns) -> None:
        """Hold the input columns to what their `InputColumn`s declare.

        Raises:
            DataError: a column is missing, or values of it are missing or out of range.
        """
        for column in self.inputs:
            column.check(self._input(columns, column.name))

    def columns_of(self, rows: Sequence[Mapping[str, object]]) -> Columns:
        """The input columns of JSON rows; a nullable field that a row lacks is None (strings) or NaN.

        Raises:
            DataError: a row lacks a field that is not nullable, or holds a value of another type; names row and field.
        """
        return {
            column.name: as_column([_value(row, column, position) for position, row in enumerate(rows)], column.kind)
            for column in self.inputs
        }

    def _transform(self, inputs: Columns) -> Columns:
        try:
            return self.transform(inputs)
        except KeyError as error:
            raise self._error(
                f"the features ask for a column that is not declared: {error}", got=f"inputs {', '.join(inputs)}"
            ) from error

    def _input(self, columns: Columns, name: str) -> NDArray[Any]:
        if name not in columns:
            raise missing_column("input", name, columns)
        return columns[name]

    def _output(self, outputs: Columns, name: str) -> NDArray[Any]:
        if name not in outputs:
            raise self._error(f"the transform does not return the feature {name}", got=f"columns {', '.join(outputs)}")
        return outputs[name]

    def _error(self, what: str, got: str) -> DataError:
        return DataError(what, where=_where(self.transform), got=got)


def _value(row: Mapping[str, object], column: InputColumn, position: int) -> object:
    value = row.get(column.name)
    types = (str,) if column.kind == "string" else (int, float, np.number)
    if value is None and column.nullable:
        return None
    if isinstance(value, types) and not isinstance(value, bool):
        return value
    raise DataError(
        f"field {column.name} must be of type {column.kind}",
        where=f"row {position}",
        got="nothing" if value is None else repr(value),
    )


def _where(function: Callable[..., Any]) -> str | None:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}, {function.__qualname__}()" if code else None
