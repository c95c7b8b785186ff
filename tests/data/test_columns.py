import numpy as np
import pytest

from heliostat.data.columns import InputColumn, num_rows, number_column, string_column
from heliostat.errors import DataError


def test_strings_are_objects_with_none_for_a_missing_value() -> None:
    column = string_column(["a", None, float("nan"), "b"])
    assert column.dtype == object
    assert column.tolist() == ["a", None, None, "b"]


def test_numbers_are_float64_with_nan_for_a_missing_value() -> None:
    column = number_column([1, None, 2.5])
    assert column.dtype == np.float64
    assert np.array_equal(column, [1.0, np.nan, 2.5], equal_nan=True)


def test_num_rows_is_the_common_length() -> None:
    assert num_rows({"a": np.zeros(3), "b": np.ones(3)}) == 3


def test_values_as_declared_pass() -> None:
    InputColumn(name="seats", kind="number", nullable=True, minimum=0, maximum=5).check(np.array([0, 5, np.nan]))
    InputColumn(name="carrier", kind="string", nullable=True).check(string_column(["UA", None]))
    InputColumn(name="free", kind="number").check(np.array([-1e300, 1e300]))


@pytest.mark.parametrize("column", [InputColumn(name="x", kind="number"), InputColumn(name="x", kind="string")])
def test_a_missing_value_in_a_column_that_is_not_nullable_is_an_error(column: InputColumn) -> None:
    values = string_column(["a", None, "b"]) if column.kind == "string" else np.array([1.0, np.nan, 2.0])
    with pytest.raises(DataError, match="input column x is missing in 1 of 3 rows"):
        column.check(values)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "between 0.0 and 2.0 but -1"), (2.5, "but 2.5")])
def test_a_value_out_of_range_is_an_error(value: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        InputColumn(name="x", kind="number", minimum=0, maximum=2).check(np.array([1.0, value]))
