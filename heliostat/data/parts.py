"""Writing one split of a dataset version: blocks in, Parquet files and their description out.

Runs as Ray Data tasks: each block becomes one file with inputs, label, features and the row's place in the order.
"""

from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from ray.data import Dataset

from heliostat.data.columns import Columns, Kind, missing_column, number_column, string_column
from heliostat.data.features import FeatureSet
from heliostat.data.layout import ROW, SPLIT, Part, filesystem_of, table_schema
from heliostat.data.prepare import ray_data
from heliostat.data.statistics import summarise
from heliostat.errors import DataError, HeliostatError, StoreError

_HASH_PRIME = np.uint64(0x100000001B3)
"""The prime of FNV-1a, 64 bits."""


def write_parts(rows: Dataset, split: str, *, uri: str, label: str, features: FeatureSet) -> list[Part]:
    """Compute the features of `rows` and write all columns below `uri`, one file per block.

    Raises:
        DataError: no rows, a column that is missing or not as declared, a label that is missing.
        StoreError: the files cannot be written.
    """
    settings = {"split": split, "uri": uri, "label": label, "features": features}
    with ray_data():
        written = rows.map_batches(_write_block, batch_format="pyarrow", batch_size=None, fn_kwargs=settings).take_all()
    parts = [Part.model_validate_json(row["part"]) for row in written]
    if not parts:
        raise DataError(
            f"split {split} is empty",
            causes=["a filter of the preparation leaves no row", "the boundaries of the splits do not fit the data"],
        )
    return parts


def _write_block(block: pa.Table, **settings: Any) -> dict[str, list[str]]:
    """What Ray Data runs: one row out for a block, none for a block without rows."""
    try:
        return {"part": [_write_part(block, **settings).model_dump_json()] if block.num_rows else []}
    except HeliostatError as error:
        error.where = ", ".join(filter(None, [f"split {settings['split']}", error.where]))
        raise


def _write_part(block: pa.Table, *, split: str, uri: str, label: str, features: FeatureSet) -> Part:
    raw = {column.name: _column(block, column.name, column.kind, "input") for column in features.inputs}
    raw[label] = _column(block, label, "number", "label")
    features.check(raw)
    _check_label(raw[label], label)
    computed = features.compute(raw)
    path = f"{SPLIT}={split}/{uuid4().hex}.parquet"
    table = _table({**raw, **computed, ROW: _row_hash(raw)}, table_schema(features, label))
    return Part(
        split=split,
        path=path,
        size_bytes=_write(table, uri, path),
        num_rows=len(table),
        statistics=summarise({**computed, label: raw[label]}),
    )


def _column(block: pa.Table, name: str, kind: Kind, role: str) -> NDArray[Any]:
    if name not in block.column_names:
        raise missing_column(role, name, block.column_names)
    values = block[name]
    stored = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    is_string = pa.types.is_string(stored) or pa.types.is_large_string(stored)
    is_number = pa.types.is_integer(stored) or pa.types.is_floating(stored) or pa.types.is_boolean(stored)
    if not pa.types.is_null(stored) and not (is_string if kind == "string" else is_number):
        raise DataError(f"{role} column {name} must be of type {kind}", got=f"Arrow type {values.type}")
    if kind == "string":
        return string_column(values.to_pylist())
    return number_column(values.cast(pa.float64()).to_numpy())


def _check_label(values: NDArray[np.float64], label: str) -> None:
    num_missing = int(np.isnan(values).sum())
    if num_missing:
        raise DataError(
            f"the label {label} is missing in {num_missing} of {len(values)} rows of a block",
            causes=["rows whose outcome is not known, such as cancelled ones"],
            next_step="leave these rows out in the preparation, and count them in `dropped`",
        )


def _row_hash(columns: Columns) -> NDArray[np.int64]:
    """A hash of every row's values; equal rows get equal hashes, and are then interchangeable."""
    hashes = np.zeros(len(next(iter(columns.values()))), dtype=np.uint64)
    for name in sorted(columns):
        hashes = (hashes ^ pd.util.hash_array(columns[name])) * _HASH_PRIME
    return hashes.view(np.int64)


def _table(columns: Columns, schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _write(table: pa.Table, uri: str, path: str) -> int:
    filesystem, root = filesystem_of(uri)
    target = f"{root}/{path}"
    try:
        filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
        parquet.write_table(table, target, filesystem=filesystem)
        return int(filesystem.get_file_info(target).size)
    except OSError as error:
        raise StoreError(
            "the dataset cannot be written",
            where=target,
            got=str(error),
            next_step="check the space and the permissions there, or choose another store",
        ) from error
