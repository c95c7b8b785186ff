"""How a dataset version lies on disk: Parquet files below a Delta table, partitioned by split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs

from heliostat.data.columns import number_column, sequence_column, string_column
from heliostat.data.statistics import ColumnStatistics
from heliostat.values import Frozen

ROW, SPLIT = "_row", "split"
"""Columns of ours in every table: the place of the row in the order, and the partition."""

Stored = Literal["string", "number", "sequence"]
"""How a column is stored."""
_ARROW: Mapping[Stored, pa.DataType] = {
    "string": pa.string(),
    "number": pa.float64(),  # whole numbers too, so that all come back exactly as they went in
    "sequence": pa.list_(pa.int32()),
}


class Part(Frozen):
    """One written file: its path below the table, and what it holds."""

    split: str
    path: str
    size_bytes: int
    num_rows: int
    stored: dict[str, Stored]
    """Its columns, in their order."""
    statistics: dict[str, ColumnStatistics]
    """Of the features and the label."""


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """Where a table lies: a path, or a URI that Arrow knows (`s3://...`), as file system and path in it."""
    filesystem, path = fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute()))
    return filesystem, path


def table_schema(stored: Mapping[str, Stored]) -> pa.Schema:
    """The columns of the files, and `_row` behind them."""
    return pa.schema([*((name, _ARROW[how]) for name, how in stored.items()), (ROW, pa.int64())])


def stored_as(values: pa.DataType) -> Stored | None:
    """How values of an Arrow type are stored; None for those that are not."""
    value = values.value_type if pa.types.is_dictionary(values) else values
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return "string"
    if pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_boolean(value):
        return "number"
    is_list = pa.types.is_list(value) or pa.types.is_large_list(value) or pa.types.is_fixed_size_list(value)
    return "sequence" if is_list and pa.types.is_integer(value.value_type) else None


def column_of(values: pa.ChunkedArray, name: str, how: Stored) -> NDArray[Any]:
    """Arrow values in the storage type of `columns`.

    Raises:
        DataError: sequences that are not whole or not of one length.
    """
    if how == "sequence":
        return sequence_column(values, name)
    if how == "string":
        return string_column(values.to_pylist())
    return number_column(values.cast(pa.float64()).to_numpy())
