"""One canonical form for values: equal values hash alike, and what has no form is refused."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from heliostat.values import Frozen, canonical_json, digest, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Point(Frozen):
    x: int
    path: Path = Path("a/b")
    parts: tuple[float, ...] = ()


class Line(Frozen):
    start: Point
    names: dict[str, int]


LINE = Line(start=Point(x=1, parts=(0.5,)), names={"b": 2, "a": 1})


def test_a_value_is_immutable_strict_about_names_and_goes_through_json() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LINE.start = Point(x=2)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Point.model_validate({"x": 1, "z": 2})
    assert Line.model_validate_json(LINE.model_dump_json()) == LINE


def test_plain_is_json_all_the_way_down() -> None:
    assert plain(LINE) == {"start": {"x": 1, "path": "a/b", "parts": [0.5]}, "names": {"b": 2, "a": 1}}
    assert canonical_json({"b": [1, None], "a": True}) == '{"a":true,"b":[1,null]}'


@given(JSON)
def test_plain_leaves_json_alone(value: Any) -> None:
    assert plain(value) == value


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_digest_does_not_see_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"a": True}, {"a": [1]}, {"b": 1}, {"a": 1, "b": 1}, {}]
)
def test_a_digest_sees_every_other_difference(other: dict[str, Any]) -> None:
    assert digest(other) != digest({"a": 1})


def test_a_digest_is_the_same_on_every_machine() -> None:
    assert digest({"lr": 0.002, "task": ["a", None]}) == "ba2d77b106d9bf24"


UNKNOWN = [{1, 2}, b"bytes", object(), len, Point, dt.date(2013, 1, 1), np.float64(1).astype(np.float32), 1j]


@pytest.mark.parametrize("value", UNKNOWN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["bare", "nested"])
def test_a_digest_refuses_what_has_no_canonical_form(value: object, wrap: Any) -> None:
    with pytest.raises(TypeError, match="cannot put a"):
        digest(wrap(value))


def test_a_digest_refuses_keys_that_are_not_text() -> None:
    with pytest.raises(TypeError, match="keys must be strings, got 1"):
        digest({1: "a"})
