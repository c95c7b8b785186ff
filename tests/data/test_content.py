"""What is stored of a block that comes without features; with them `test_versions` tells."""

import numpy as np
import pyarrow as pa
import pytest

from heliostat.data.content import AsPrepared
from heliostat.errors import DataError


def test_strings_numbers_and_sequences_are_stored_as_they_are() -> None:
    rows = pa.table(
        {
            "title": pa.array(["a", None]),
            "pages": pa.array([3, None], pa.int8()),
            "tokens": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int64())),
            "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.uint16(), 2)),
        }
    )
    block = AsPrepared().block(rows)
    assert block.stored == {"title": "string", "pages": "number", "tokens": "sequence", "fixed": "sequence"}
    assert block.columns["title"].tolist() == ["a", None]
    assert block.columns["pages"].dtype == np.float64
    assert block.columns["tokens"].dtype == np.dtype(np.int32)
    assert block.columns["tokens"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert block.columns["fixed"].tolist() == [[1, 2], [3, 4]]
    assert block.described == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1, 2], [3]]), r"column rows are not whole and of one length"),
        (pa.array([[1, 2], None]), "not whole"),
        (pa.array([[1, None], [1, 2]]), "not whole"),
        (pa.array([[1.5], [2.0]]), "column rows cannot be stored"),
        (pa.array([b"a", b"b"]), "column rows cannot be stored"),
    ],
)
def test_what_is_not_stored_is_named(values: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        AsPrepared().block(pa.table({"rows": values}))


def test_part_of_a_sequence_column_is_that_part() -> None:
    """A block may be a slice, whose arrays begin in the middle of what is in memory."""
    rows = pa.table({"tokens": pa.array([[1, 2], [3, 4], [5, 6]])}).slice(1, 2)
    assert AsPrepared().block(rows).columns["tokens"].tolist() == [[3, 4], [5, 6]]


def test_our_own_names_are_taken() -> None:
    with pytest.raises(DataError, match="needs for itself: _row, split"):
        AsPrepared().block(pa.table({"_row": [1], "split": ["train"]}))
