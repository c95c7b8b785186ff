"""One row or a batch, the features are the same to the last bit; and every mistake in a feature set has its message."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet
from heliostat.errors import DataError


def transform(columns: Columns) -> Columns:
    amount, rate = columns["amount"], columns["rate"]
    return {
        "log": np.log1p(np.abs(amount)),
        "wave": np.sin(amount) + np.cos(rate),
        "ratio": amount / (np.abs(rate) + 1),
        "power": np.sqrt(np.abs(amount)) * np.exp(-np.abs(rate)),
        "shop": columns["city"],
        "size": np.where(amount > 10, "large", "small"),
    }


FEATURES = FeatureSet(
    inputs=(
        InputColumn(name="amount", kind="number", nullable=True),
        InputColumn(name="rate", kind="integer"),
        InputColumn(name="city", kind="string", nullable=True),
    ),
    numeric=("log", "wave", "ratio", "power"),
    categorical=("shop", "size"),
    transform=transform,
)

rows = st.fixed_dictionaries(
    {"rate": st.integers(-1000, 1000)},
    optional={
        "amount": st.none() | st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9),
        "city": st.none() | st.sampled_from(["Lyon", "Graz", ""]),
    },
)


@given(st.lists(rows, min_size=1, max_size=40))
def test_a_batch_equals_its_rows_one_by_one_bit_for_bit(batch: list[dict[str, object]]) -> None:
    together = FEATURES.compute(FEATURES.columns_of(batch))
    alone = [FEATURES.compute(FEATURES.columns_of([row])) for row in batch]
    for name in FEATURES.numeric:
        assert together[name].tobytes() == np.concatenate([row[name] for row in alone]).tobytes()
    for name in FEATURES.categorical:
        assert together[name].tolist() == [row[name][0] for row in alone]


def test_features_come_in_their_storage_types() -> None:
    features = FEATURES.compute(FEATURES.columns_of([{"rate": 1}, {"rate": 2, "amount": 11, "city": "Graz"}]))
    assert list(features) == [*FEATURES.numeric, *FEATURES.categorical]
    assert {features[name].dtype for name in FEATURES.numeric} == {np.dtype(np.float64)}
    assert features["shop"].tolist() == [None, "Graz"]
    assert features["size"].tolist() == ["small", "large"]
    assert np.isnan(features["log"][0])


def test_the_transform_sees_inputs_only() -> None:
    peeking = dataclasses.replace(FEATURES, transform=lambda columns: {"log": columns["label"]})
    columns = {**FEATURES.columns_of([{"rate": 1}]), "label": np.ones(1)}
    with pytest.raises(DataError, match="a column that is not declared: 'label'") as caught:
        peeking.compute(columns)
    assert caught.value.where
    assert "test_features.py" in caught.value.where


def test_a_missing_input_is_named_with_the_closest_column() -> None:
    with pytest.raises(DataError, match=r"input column is missing: amount \(did you mean 'amonut'\?\)"):
        FEATURES.compute({"amonut": np.ones(1), "rate": np.ones(1), "city": np.array(["a"], dtype=object)})


def test_a_feature_the_transform_forgets_is_named() -> None:
    forgetful = dataclasses.replace(FEATURES, numeric=("log", "logg"))
    with pytest.raises(DataError, match="does not return the feature logg"):
        forgetful.compute(FEATURES.columns_of([{"rate": 1}]))


def test_a_transform_that_drops_rows_is_an_error() -> None:
    dropping = dataclasses.replace(
        FEATURES, transform=lambda columns: {name: values[:1] for name, values in transform(columns).items()}
    )
    with pytest.raises(DataError, match="changed the number of rows: 2 went in"):
        dropping.compute(FEATURES.columns_of([{"rate": 1}, {"rate": 2}]))


@pytest.mark.parametrize("numeric", [("amount",), ("log", "log"), ("shop",)])
def test_a_name_used_twice_is_an_error(numeric: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"stands for two things: {numeric[0]}"):
        dataclasses.replace(FEATURES, numeric=numeric)


def test_rows_become_columns_with_gaps_where_they_may_be() -> None:
    columns = FEATURES.columns_of([{"rate": 1, "other": "ignored"}, {"rate": 2, "amount": 3, "city": "Graz"}])
    assert list(columns) == ["amount", "rate", "city"]
    assert np.array_equal(columns["amount"], [np.nan, 3.0], equal_nan=True)
    assert columns["city"].tolist() == [None, "Graz"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "field rate must be of type integer"),
        ({"rate": None}, "field rate must be of type integer"),
        ({"rate": "7"}, "field rate must be of type integer"),
        ({"rate": True}, "field rate must be of type integer"),
        ({"rate": 1, "city": 7}, "field city must be of type string"),
    ],
)
def test_a_row_of_another_type_is_named(row: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        FEATURES.columns_of([{"rate": 1}, row])
    assert caught.value.where == "row 1"
