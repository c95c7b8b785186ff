"""Writing one split of a dataset version: blocks in, Parquet files and their description out.

Runs as Ray Data tasks: each block becomes one file with what the content makes of it, and the row's place in the order.
"""

from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from ray.data import Dataset

from heliostat.data.columns import Columns
from heliostat.data.content import Content
from heliostat.data.layout import ROW, SPLIT, Part, filesystem_of, table_schema
from heliostat.data.prepare import ray_data
from heliostat.data.statistics import summarise
from heliostat.errors import DataError, HeliostatError, StoreError

_HASH_PRIME = np.uint64(0x100000001B3)
"""The prime of FNV-1a, 64 bits."""


def write_parts(rows: Dataset, split: str, *, uri: str, content: Content) -> list[Part]:
    """Make what is stored of `rows` and write it below `uri`, one file per block.

    Raises:
        DataError: no rows, or what the content finds wrong with them.
        StoreError: the files cannot be written.
    """
    settings = {"split": split, "uri": uri, "content": content}
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


def _write_part(rows: pa.Table, *, split: str, uri: str, content: Content) -> Part:
    block = content.block(rows)
    path = f"{SPLIT}={split}/{uuid4().hex}.parquet"
    table = _table({**block.columns, ROW: _row_hash(block.raw)}, table_schema(block.stored))
    return Part(
        split=split,
        path=path,
        size_bytes=_write(table, uri, path),
        num_rows=len(table),
        stored=block.stored,
        statistics=summarise(block.described),
    )


def _row_hash(columns: Columns) -> NDArray[np.int64]:
    """A hash of every row's values; equal rows get equal hashes, and are then interchangeable."""
    hashes = np.zeros(len(next(iter(columns.values()))), dtype=np.uint64)
    for name in sorted(columns):
        values = columns[name]
        for column in values.T if values.ndim == 2 else (values,):
            hashes = (hashes ^ pd.util.hash_array(np.ascontiguousarray(column))) * _HASH_PRIME
    return hashes.view(np.int64)


def _table(columns: Columns, schema: pa.Schema) -> pa.Table:
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: NDArray[Any], stored: pa.DataType) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, stored, from_pandas=True)
    edges = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(edges, values.ravel(), type=stored)


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
