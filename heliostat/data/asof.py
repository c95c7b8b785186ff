"""As-of join: every left row gets the right row that was known at its time, and never a later one.

The right table is gathered once and lies in the object store of every node, in Arrow, shared by that node's workers;
left blocks stream past it. Against cutting both sides by key this needs no shuffle, keeps the order of the left rows,
and does not lean on the keys being many (three airports would make three partitions). The price: the right table has
to fit into the memory of one node.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from ray.data import Dataset

from heliostat.errors import DataError
from heliostat.values import Frozen


class AsOf(Frozen):
    """Which right row belongs to a left row: same key, and the latest one known at `left_on - offset_s`.

    A right row is known from `right_on` on, that instant included. Of several right rows with the same key and time,
    the last in input order is taken. A left row without key, without time or without a match keeps its place and gets
    missing values; a right row without key or time is never taken.
    """

    by: str
    """Key column, in both tables."""
    left_on: str
    """Time of the left row."""
    right_on: str
    """Time from which the right row is known."""
    columns: tuple[str, ...]
    """Right columns to take."""
    prefix: str = ""
    """Goes before the names of the taken columns."""
    offset_s: NonNegativeFloat = 0.0
    """How long before `left_on` the right row must have been known."""
    tolerance_s: NonNegativeFloat | None = None
    """How old the right row may be at `left_on - offset_s`, inclusive; None: any age."""


def asof_join(left: Dataset, right: Dataset, spec: AsOf) -> Dataset:
    """`left`, lazily, with the columns of `right` that were known in time; the cut of either into blocks is no matter.

    Running it raises what `asof_merge` raises.
    """
    table = ray.remote(_gather).remote(*right.to_arrow_refs())
    return left.map_batches(_merge_block, batch_format="pyarrow", batch_size=None, fn_args=(table, spec))


def asof_merge(left: pa.Table, right: pa.Table, spec: AsOf) -> pa.Table:
    """`left`, in its order, with the columns of `right` that were known in time; types stay as they are.

    Raises:
        DataError: a column is missing, or a taken column has the name of a left one.
    """
    _check(left.column_names, right.column_names, spec)
    position = _match(left, right, spec)
    source = pa.array(position, mask=position < 0)
    for name in spec.columns:
        left = left.append_column(spec.prefix + name, right[name].take(source))
    return left


def _match(left: pa.Table, right: pa.Table, spec: AsOf) -> NDArray[np.int64]:
    """For each left row the position of its right row, or -1."""
    keys = pd.factorize(np.concatenate([_keys(left[spec.by]), _keys(right[spec.by])]))[0]
    wanted = _timeline(left[spec.left_on], keys[: len(left)], "left")
    wanted["time"] -= pd.Timedelta(seconds=spec.offset_s)
    matches = pd.merge_asof(
        wanted,
        _timeline(right[spec.right_on], keys[len(left) :], "right"),
        on="time",
        by="key",
        tolerance=None if spec.tolerance_s is None else pd.Timedelta(seconds=spec.tolerance_s),
    ).dropna(subset="right")
    position = np.full(len(left), -1, dtype=np.int64)
    position[matches["left"]] = matches["right"]
    return position


def _keys(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.asarray(column.to_pandas(integer_object_nulls=True), dtype=object)


def _timeline(time: pa.ChunkedArray, keys: NDArray[np.int64], side: str) -> pd.DataFrame:
    """Time, key and position (named `side`) of the rows that have time and key, by time; equal times in input order."""
    known = pd.to_datetime(time.to_pandas(), utc=True).dt.as_unit("ns")
    timeline = pd.DataFrame({"time": known, "key": keys, side: np.arange(len(keys))})
    return timeline[known.notna() & (keys >= 0)].sort_values("time", kind="stable")


def _check(left: list[str], right: list[str], spec: AsOf) -> None:
    needed = {"left": (left, (spec.by, spec.left_on)), "right": (right, (spec.by, spec.right_on, *spec.columns))}
    for side, (columns, names) in needed.items():
        missing = [name for name in names if name not in columns]
        if missing:
            raise DataError(
                f"the {side} table of the as-of join lacks {', '.join(missing)}", got=f"columns {', '.join(columns)}"
            )
    taken = [spec.prefix + name for name in spec.columns if spec.prefix + name in left]
    if taken:
        raise DataError(
            f"the as-of join would overwrite {', '.join(taken)} of the left table", next_step="set another prefix"
        )


def _merge_block(left: pa.Table, right: Any, spec: AsOf) -> pa.Table:
    return asof_merge(left, ray.get(right), spec)  # Ray Data hands object references through as they are


def _gather(*tables: pa.Table) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default")
