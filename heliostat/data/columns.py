"""A table in memory: named numpy columns of equal length.

Three storage types are enough for what a model eats. Strings are object arrays with None where a value is missing;
integers and numbers are float64 with NaN there, so that a column has the same type whether or not a row lacks it.
Sequences of whole numbers, all of one length, are int32 (n, length), and no row lacks its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from heliostat.errors import DataError
from heliostat.references import did_you_mean
from heliostat.values import Frozen

Columns = Mapping[str, NDArray[Any]]
"""Column name -> values, all of one length."""

Kind = Literal["string", "integer", "number"]


class InputColumn(Frozen):
    """One raw column that the features are computed from, as a client sends it and as the prepared rows hold it."""

    name: str
    kind: Kind
    description: str = ""
    nullable: bool = False
    """Whether a row may lack it."""
    minimum: float | None = None
    maximum: float | None = None
    example: str | float | None = None

    def check(self, values: NDArray[Any]) -> None:
        """Hold `values` to what is declared, as the server does with every request.

        Raises:
            DataError: values are missing in a column that is not nullable, or lie outside minimum and maximum.
        """
        absent = np.array([value is None for value in values]) if self.kind == "string" else np.isnan(values)
        if absent.any() and not self.nullable:
            raise self._broken("missing", absent, "declare it nullable, or fill the gaps in the preparation")
        if self.kind != "string":
            outside = (values < _or(self.minimum, -np.inf)) | (values > _or(self.maximum, np.inf))
            if outside.any():
                allowed = f"between {_or(self.minimum, '-inf')} and {_or(self.maximum, 'inf')}"
                raise self._broken(f"not {allowed} but {values[outside][0]:g}", outside, "correct one of the two")

    def _broken(self, what: str, rows: NDArray[np.bool_], next_step: str) -> DataError:
        return DataError(
            f"input column {self.name} is {what} in {int(rows.sum())} of {len(rows)} rows of a block",
            causes=["the data is not as its InputColumn declares it"],
            next_step=next_step,
        )


def num_rows(columns: Columns) -> int:
    """The length all columns share; the columns of one table are of one length."""
    lengths = {len(values) for values in columns.values()}
    assert len(lengths) == 1, f"columns of lengths {lengths}"
    return lengths.pop()


def string_column(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
    """`values` as an object array of str, None where a value is None or NaN."""
    column = np.empty(len(values), dtype=object)
    column[:] = [None if value is None or value != value else str(value) for value in values]  # noqa: PLR0124  # NaN
    return column


def number_column(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    """`values` as float64, NaN where a value is None: one NaN, of the many that arithmetic leaves behind."""
    column = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(column), np.nan, column)


def sequence_column(rows: pa.Array | pa.ChunkedArray, name: str) -> NDArray[np.int32]:
    """Lists of integers as int32 (n, length).

    Raises:
        DataError: they differ in length, or a row or a value is missing.
    """
    lengths = set(pc.unique(pc.list_value_length(rows)).to_pylist())
    values = pc.list_flatten(rows)
    if len(lengths) != 1 or None in lengths or values.null_count:
        raise DataError(
            f"the sequences of column {name} are not whole and of one length",
            got=f"lengths {', '.join(map(str, sorted(lengths, key=str)))}",
            next_step="cut or pad them in the preparation",
        )
    flat = values.cast(pa.int32()).to_numpy()
    return np.ascontiguousarray(flat).reshape(len(rows), *lengths)


def as_column(values: Sequence[Any] | NDArray[Any], kind: Kind) -> NDArray[Any]:
    """`values` in the storage type of `kind`: object for strings, float64 for integers and numbers."""
    return string_column(values) if kind == "string" else number_column(values)


def missing_column(role: str, name: str, known: Iterable[str]) -> DataError:
    """The error for a column that is not there; `role` says what it would be: `input`, `label`."""
    return DataError(
        f"{role} column is missing: {name}{did_you_mean(name, known)}",
        got=f"columns {', '.join(known)}",
        next_step=f"let the preparation return {name!r}, or name another column",
    )


def _or(value: float | None, default: Any) -> Any:
    return default if value is None else value
