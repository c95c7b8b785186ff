import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.columns import string_column
from heliostat.data.encoder import Encoder
from heliostat.data.statistics import merge, summarise

TRAIN = {"x": np.array([1.0, 3.0, np.nan]), "same": np.full(3, 7.0), "s": string_column(["b", "a", None])}
ENCODER = Encoder.fit(summarise(TRAIN), numeric=("x", "same"), categorical=("s",))


def test_numbers_are_standardised_and_categories_numbered() -> None:
    arrays = ENCODER.encode(TRAIN)
    assert arrays["numeric"].dtype == np.float32
    assert arrays["numeric"].tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert arrays["categorical"].dtype == np.int64
    assert arrays["categorical"].tolist() == [[2], [1], [0]]


def test_what_train_has_not_shown_is_zero() -> None:
    row = {"x": np.array([np.nan]), "same": np.array([8.0]), "s": string_column(["new"])}
    assert ENCODER.encode(row)["categorical"].tolist() == [[0]]
    assert ENCODER.encode(row)["numeric"].tolist() == [[0.0, 1.0]]


def test_shapes_for_a_model() -> None:
    assert ENCODER.num_numeric == 2
    assert ENCODER.cardinalities == (3,)


def test_no_features_of_one_kind_give_an_array_without_columns() -> None:
    encoder = Encoder.fit(summarise(TRAIN), numeric=("x",), categorical=())
    assert encoder.encode(TRAIN)["categorical"].shape == (3, 0)


def test_json_gives_back_the_same_encoder() -> None:
    assert Encoder.model_validate_json(ENCODER.model_dump_json()) == ENCODER


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=2, max_size=60), st.data())
def test_the_fit_does_not_depend_on_how_rows_were_cut(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    column = np.array(values)
    whole = summarise({"x": column})
    left, right = summarise({"x": column[:cut]}), summarise({"x": column[cut:]})
    fits = [
        Encoder.fit(each, numeric=("x",), categorical=()) for each in (whole, merge(left, right), merge(right, left))
    ]
    encoded = [fit.encode({"x": column})["numeric"] for fit in fits]
    np.testing.assert_allclose(encoded[1], encoded[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(encoded[2], encoded[0], rtol=1e-6, atol=1e-6)
