import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.columns import Columns, number_column, string_column
from heliostat.data.statistics import ColumnStatistics, merge, summarise
from heliostat.errors import DataError

numbers = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=30)
strings = st.lists(st.none() | st.sampled_from("abcd"), max_size=30)


def table(values: list[float | None], names: list[str | None]) -> Columns:
    return {"x": number_column(values), "s": string_column(names)}


@given(numbers, numbers, strings, strings)
def test_merged_parts_equal_the_whole(
    a: list[float | None], b: list[float | None], c: list[str | None], d: list[str | None]
) -> None:
    merged = merge(summarise(table(a, c)), summarise(table(b, d)))
    whole = summarise(table(a + b, c + d))
    assert merged["s"] == whole["s"]
    assert merged["x"].model_dump(exclude={"mean", "squared_deviation"}) == whole["x"].model_dump(
        exclude={"mean", "squared_deviation"}
    )
    assert merged["x"].mean == pytest.approx(whole["x"].mean, abs=1e-6)
    assert merged["x"].deviation == pytest.approx(whole["x"].deviation, abs=1e-6)


def test_figures_of_a_number_column() -> None:
    column = summarise({"x": np.array([1.0, 3.0, np.nan])})["x"]
    assert (column.num_rows, column.num_missing, column.num_values) == (3, 1, 2)
    assert (column.mean, column.deviation, column.minimum, column.maximum) == (2.0, 1.0, 1.0, 3.0)


def test_a_small_spread_around_a_large_mean_is_kept() -> None:
    values = 1e9 + np.array([0.0, 1.0, 2.0, 3.0])
    merged = merge(summarise({"x": values[:1]}), summarise({"x": values[1:]}))["x"]
    assert merged.deviation == pytest.approx(np.std([0, 1, 2, 3]), rel=1e-6)


def test_figures_of_a_string_column_and_of_an_empty_one() -> None:
    columns = summarise({"s": string_column(["b", "a", None, "b"]), "nothing": number_column([None, None])})
    assert columns["s"].categories == {"a": 1, "b": 2}
    assert columns["s"].num_missing == 1
    assert columns["nothing"] == ColumnStatistics(num_rows=2, num_missing=2)


def test_an_infinity_is_an_error() -> None:
    with pytest.raises(DataError, match="column x holds an infinity") as caught:
        summarise({"x": np.array([1.0, np.inf])})
    assert caught.value.got == "1 of 2 rows"
