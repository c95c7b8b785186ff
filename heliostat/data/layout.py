"""How a dataset version lies on disk: Parquet files below a Delta table, partitioned by split."""

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from heliostat.data.features import FeatureSet
from heliostat.data.statistics import ColumnStatistics
from heliostat.values import Frozen

ROW, SPLIT = "_row", "split"
"""Columns of ours in every table: the place of the row in the order, and the partition."""


class Part(Frozen):
    """One written file: its path below the table, and what it holds."""

    split: str
    path: str
    size_bytes: int
    num_rows: int
    statistics: dict[str, ColumnStatistics]
    """Of the features and the label."""


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """Where a table lies: a path, or a URI that Arrow knows (`s3://...`), as file system and path in it."""
    filesystem, path = fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute()))
    return filesystem, path


def table_schema(features: FeatureSet, label: str) -> pa.Schema:
    """The columns of the files: inputs, label, features, `_row`; numbers as float64, so that they come back exactly."""
    stored = {"string": pa.string(), "integer": pa.float64(), "number": pa.float64()}
    fields = [(column.name, stored[column.kind]) for column in features.inputs]
    fields += [(label, pa.float64())]
    fields += [(name, stored[features.kind(name)]) for name in features.names]
    return pa.schema([*fields, (ROW, pa.int64())])
