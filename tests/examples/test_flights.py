"""The quickstart's data: what is known when, how many rows there are, and one feature code for table and request."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.asof import asof_merge
from heliostat.data.features import FeatureSet
from heliostat.data.versions import DatasetVersion, load_columns
from heliostat.references import code_paths, resolve

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
PREPARE, FEATURES_REFERENCE = f"{FLIGHTS}/prepare.py:prepare", f"{FLIGHTS}/features.py:FEATURES"
HOUR = pd.Timedelta(hours=1)
NUM_FLIGHTS = 336_776


@pytest.fixture(scope="module")
def flights_code() -> Any:
    resolve(PREPARE)
    return importlib.import_module("flights.prepare")


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    found = resolve(FEATURES_REFERENCE)
    assert isinstance(found, FeatureSet)
    return found


@pytest.fixture(scope="module")
def flights(flights_code: Any) -> pd.DataFrame:
    return pd.read_csv(flights_code._file("flights.csv.zip"))


@pytest.fixture(scope="module")
def weather(flights_code: Any) -> pd.DataFrame:
    return pd.read_csv(flights_code._file("weather.csv"))


@pytest.fixture(scope="module")
def version(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """The whole data step, as the pipeline runs it: in a task whose path leads to the user's code."""
    import ray

    uri = str(tmp_path_factory.mktemp("store") / "flight-delay")

    def data_step() -> str:
        from heliostat.data.prepare import run_prepare
        from heliostat.data.versions import commit

        code: Any = resolve(PREPARE)
        features: Any = resolve(FEATURES_REFERENCE)
        prepared = run_prepare(code, {"late_after_minutes": 15})
        return commit(prepared, uri=uri, name="flight-delay", label="late", features=features).model_dump_json()

    path = ":".join(code_paths([PREPARE, FEATURES_REFERENCE]))
    task = ray.remote(num_cpus=0, runtime_env={"env_vars": {"PYTHONPATH": path}})(data_step)
    return DatasetVersion.model_validate_json(ray.get(task.remote()))


def test_time_hour_is_utc_in_both_tables(flights: pd.DataFrame, weather: pd.DataFrame) -> None:
    departure = flights.assign(hour=flights["sched_dep_time"] // 100)
    for table in (departure, weather):
        local = pd.to_datetime(table["time_hour"], utc=True).dt.tz_convert("America/New_York")
        for field in ("year", "month", "day", "hour"):
            assert (getattr(local.dt, field) == table[field]).all()
    clock_change = weather[(weather["origin"] == "JFK") & (weather["month"] == 11) & (weather["day"] == 3)]
    assert clock_change["time_hour"].is_unique
    assert (clock_change["hour"] == 1).sum() == 2


def test_the_schedule_says_instant_weekday_and_traffic(flights_code: Any, flights: pd.DataFrame) -> None:
    scheduled = flights_code.scheduled_flights(flights)
    first = scheduled.iloc[0]
    assert first["scheduled"] == pd.Timestamp("2013-01-01 05:15", tz="America/New_York")
    assert first["weekday"] == 2, "1 January 2013 was a Tuesday"
    same_hour = (flights["origin"] == first["origin"]) & (flights["time_hour"] == first["time_hour"])
    assert first["origin_hour_flights"] == same_hour.sum()


@pytest.mark.parametrize("shift", [pd.Timedelta(0), HOUR])
def test_weather_is_what_brute_force_finds_also_when_it_comes_an_hour_later(
    flights_code: Any, flights: pd.DataFrame, weather: pd.DataFrame, shift: pd.Timedelta
) -> None:
    sample = flights_code.scheduled_flights(flights).sample(400, random_state=1)
    late_weather = weather.assign(time_hour=pd.to_datetime(weather["time_hour"], utc=True) + shift)
    known = flights_code.known_weather(late_weather)
    spec = flights_code.KNOWN_WEATHER.model_copy(update={"columns": ("temp", "known_from")})
    joined = asof_merge(arrow(sample, "origin", "scheduled"), arrow(known, "origin", "known_from", "temp"), spec)
    for row in joined.to_pylist():
        in_time = row["scheduled"] - HOUR - shift
        candidates = known_before(weather, row["origin"], in_time)
        expected = candidates.iloc[-1] if len(candidates) else None
        assert row["known_from"] == (None if expected is None else expected["hour_end"] + shift)
        assert row["temp"] == (None if expected is None else expected["temp"])


def arrow(table: pd.DataFrame, *columns: str) -> pa.Table:
    return pa.table({name: pa.array(table[name].tolist(), from_pandas=True) for name in columns})


def known_before(weather: pd.DataFrame, origin: str, instant: Any) -> pd.DataFrame:
    """The weather rows of `origin` whose hour had ended at `instant`, at most six hours ago, in order of time."""
    hour_end = pd.to_datetime(weather["time_hour"], utc=True) + HOUR
    fits = (weather["origin"] == origin) & (hour_end <= instant) & (hour_end >= instant - 6 * HOUR)
    return weather.assign(hour_end=hour_end)[fits].sort_values("hour_end")


def test_the_delay_of_an_hour_is_known_when_the_hour_has_ended(flights_code: Any, flights: pd.DataFrame) -> None:
    scheduled = flights_code.scheduled_flights(flights)
    known = flights_code.known_delay(scheduled).set_index(["origin", "known_from"])["origin_delay"]
    departed = scheduled["scheduled"] + pd.to_timedelta(scheduled["dep_delay"], unit="min")
    for origin, end in known.sample(20, random_state=1).index:
        left = scheduled[(scheduled["origin"] == origin) & (departed >= end - HOUR) & (departed < end)]
        assert known[origin, end] == pytest.approx(left["dep_delay"].mean())


def test_an_impossible_wind_is_missing(flights_code: Any, weather: pd.DataFrame) -> None:
    cleaned = flights_code.known_weather(weather)["wind_speed"]
    assert weather["wind_speed"].max() > 1000
    assert cleaned.max() < 100
    assert cleaned.isna().sum() == weather["wind_speed"].isna().sum() + 1


@pytest.mark.ray
def test_every_flight_is_in_a_split_or_counted_as_dropped(version: DatasetVersion) -> None:
    assert version.num_rows == {"train": 244_737, "validation": 28_618, "test": 53_991}
    assert version.dropped == {"cancelled": 8_255, "diverted": 1_175}
    assert sum(version.num_rows.values()) + sum(version.dropped.values()) == NUM_FLIGHTS


@pytest.mark.ray
def test_the_label_is_the_share_of_late_arrivals(version: DatasetVersion, flights: pd.DataFrame) -> None:
    arrived = flights[flights["arr_delay"].notna()]
    for split, months in {"train": range(1, 10), "validation": [10], "test": [11, 12]}.items():
        late = arrived.loc[arrived["month"].isin(months), "arr_delay"] > 15
        assert load_columns(version, split, ["late"])["late"].sum() == late.sum()


@pytest.mark.ray
def test_a_json_row_gives_the_features_of_the_table_bit_for_bit(version: DatasetVersion, features: FeatureSet) -> None:
    inputs = [column.name for column in features.inputs]
    stored = load_columns(version, "test", [*inputs, *features.names])
    arrays = version.encoder.encode(stored)
    for position in range(200):
        values = {name: stored[name][position] for name in inputs}
        row = {name: value for name, value in values.items() if value is not None and value == value}  # noqa: PLR0124
        online = features.compute(features.columns_of([row]))
        for name in features.numeric:
            assert online[name].tobytes() == stored[name][position].tobytes(), name
        for name in features.categorical:
            assert online[name][0] == stored[name][position], name
        encoded = version.encoder.encode(online)
        assert encoded["numeric"].tobytes() == arrays["numeric"][position].tobytes()
        assert encoded["categorical"].tolist() == [arrays["categorical"][position].tolist()]


def input_row(features: FeatureSet) -> st.SearchStrategy[dict[str, object]]:
    """Any row that the declared inputs allow."""

    def value(column: Any) -> st.SearchStrategy[Any]:
        if column.kind == "string":
            return st.sampled_from(["UA", "EWR", "IAH", "somewhere"])
        low, high = column.minimum if column.minimum is not None else -100, column.maximum or 5000
        return st.integers(int(low), int(high)) if column.kind == "integer" else st.floats(low, high)

    required = {column.name: value(column) for column in features.inputs if not column.nullable}
    optional = {column.name: st.none() | value(column) for column in features.inputs if column.nullable}
    return st.fixed_dictionaries(required, optional=optional)


@given(st.data())
def test_any_allowed_batch_equals_its_rows_one_by_one_bit_for_bit(data: st.DataObject) -> None:
    features: Any = resolve(FEATURES_REFERENCE)
    rows = data.draw(st.lists(input_row(features), min_size=1, max_size=20))
    together = features.compute(features.columns_of(rows))
    alone = [features.compute(features.columns_of([row])) for row in rows]
    for name in features.numeric:
        assert together[name].tobytes() == np.concatenate([row[name] for row in alone]).tobytes()
        assert not np.isinf(together[name]).any()
    for name in features.categorical:
        assert together[name].tolist() == [row[name][0] for row in alone]


def test_the_documented_examples_are_a_valid_row(features: FeatureSet) -> None:
    row = {column.name: column.example for column in features.inputs}
    assert all(column.description for column in features.inputs)
    columns = features.columns_of([row])
    features.check(columns)
    computed = features.compute(columns)
    assert not any(np.isnan(computed[name]).any() for name in features.numeric)
    assert computed["departure_hour"].tolist() == ["17"]
    assert computed["airline_at_origin"].tolist() == ["UA EWR"]
