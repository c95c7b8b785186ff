"""What is stored of the prepared rows: raw columns with their features and a label, or the columns as they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from heliostat.data.columns import Columns, Kind, missing_column
from heliostat.data.features import FeatureSet
from heliostat.data.layout import ROW, SPLIT, Stored, column_of, stored_as
from heliostat.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of rows as it is stored."""

    columns: Columns
    stored: dict[str, Stored]
    """Its columns in the order of the table, and how each is stored."""
    raw: Columns
    """What tells one row from another: their order depends on these columns."""
    described: Columns
    """The columns that statistics are kept of."""


class Content(Protocol):
    """Makes what is stored of a block of prepared rows."""

    def block(self, rows: pa.Table) -> Block:
        """The rows as they are stored.

        Raises:
            DataError: a column is missing, not as declared, or of a type that is not stored.
        """


@dataclass(frozen=True, kw_only=True)
class WithFeatures:
    """The inputs of the feature set, the label, and the features; other columns are left out.

    Raises:
        DataError: a name stands for two things, or is one of ours.
    """

    features: FeatureSet
    label: str

    def __post_init__(self) -> None:
        inputs = [column.name for column in self.features.inputs]
        if self.label in (*self.features.names, *inputs):
            raise DataError(f"the label {self.label} is also an input or a feature: the model would be told the answer")
        _check_names((self.label, *self.features.names, *inputs))

    def block(self, rows: pa.Table) -> Block:
        """Inputs, label, features."""
        features, label = self.features, self.label
        raw = {column.name: _column(rows, column.name, column.kind, "input") for column in features.inputs}
        raw[label] = _column(rows, label, "number", "label")
        features.check(raw)
        _check_label(raw[label], label)
        computed = features.compute(raw)
        stored: dict[str, Stored] = {
            **{column.name: "string" if column.kind == "string" else "number" for column in features.inputs},
            label: "number",
            **{name: "string" if features.kind(name) == "string" else "number" for name in features.names},
        }
        return Block(
            columns={**raw, **computed},
            stored=stored,
            raw=raw,
            described={**computed, label: raw[label]},
        )


@dataclass(frozen=True, kw_only=True)
class AsPrepared:
    """All columns as the preparation returns them: strings, numbers, sequences of whole numbers."""

    def block(self, rows: pa.Table) -> Block:
        """The columns of `rows`."""
        _check_names(rows.column_names)
        stored: dict[str, Stored] = {}
        columns = {}
        for name in rows.column_names:
            values = _without_extension(rows[name])
            how = stored_as(values.type)
            if how is None:
                raise DataError(
                    f"column {name} cannot be stored",
                    got=f"Arrow type {rows[name].type}",
                    next_step="return strings, numbers, or sequences of integers of one length",
                )
            stored[name], columns[name] = how, column_of(values, name, how)
        return Block(columns=columns, stored=stored, raw=columns, described={})


def _without_extension(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rows of an array (n, length), for which Ray Data has a type of its own, as lists; all else as it is."""
    if isinstance(values.type, pa.BaseExtensionType) and len(getattr(values.type, "shape", ())) == 1:
        return pa.chunked_array([chunk.storage for chunk in values.chunks], type=values.type.storage_type)
    return values


def _check_names(names: Iterable[str]) -> None:
    reserved = {ROW, SPLIT} & set(names)
    if reserved:
        raise DataError(f"column names that the dataset needs for itself: {', '.join(sorted(reserved))}")


def _column(rows: pa.Table, name: str, kind: Kind, role: str) -> NDArray[Any]:
    if name not in rows.column_names:
        raise missing_column(role, name, rows.column_names)
    values, wanted = rows[name], "string" if kind == "string" else "number"
    if not pa.types.is_null(values.type) and stored_as(values.type) != wanted:
        raise DataError(f"{role} column {name} must be of type {kind}", got=f"Arrow type {values.type}")
    return column_of(values, name, "string" if kind == "string" else "number")


def _check_label(values: NDArray[np.float64], label: str) -> None:
    num_missing = int(np.isnan(values).sum())
    if num_missing:
        raise DataError(
            f"the label {label} is missing in {num_missing} of {len(values)} rows of a block",
            causes=["rows whose outcome is not known, such as cancelled ones"],
            next_step="leave these rows out in the preparation, and count them in `dropped`",
        )
