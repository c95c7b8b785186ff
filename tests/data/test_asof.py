"""The as-of join against a brute-force one written here: every left row looks at every right row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.data.asof import AsOf, asof_join, asof_merge
from heliostat.data.prepare import ray_data
from heliostat.errors import DataError

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", tz="UTC")

Row = tuple[str | None, int | None]
"""Key, and minutes after START."""

# Few keys and few minutes: ties, equal instants and gaps are the rule.
rows = st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.integers(0, 300)), max_size=25)
specs = st.builds(
    AsOf,
    by=st.just("key"),
    left_on=st.just("at"),
    right_on=st.just("known"),
    columns=st.just(("value", "name")),
    prefix=st.just("right_"),
    offset_s=st.sampled_from([0.0, 60.0, 3600.0]),
    tolerance_s=st.none() | st.sampled_from([0.0, 1800.0, 7200.0]),
)


def instant(minutes: int | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


def left_table(left: list[Row]) -> pa.Table:
    keys, times = [key for key, _ in left], [instant(minutes) for _, minutes in left]
    return pa.table(
        {"key": pa.array(keys, pa.string()), "at": pa.array(times, TIME), "n": pa.array(range(len(left)), pa.int64())}
    )


def right_table(right: list[Row], shift: timedelta = timedelta(0)) -> pa.Table:
    times = [None if minutes is None else START + timedelta(minutes=minutes) + shift for _, minutes in right]
    return pa.table(
        {
            "known": pa.array(times, TIME),
            "value": pa.array(range(len(right)), pa.int64()),
            "name": pa.array([f"row {position}" for position in range(len(right))], pa.string()),
            "key": pa.array([key for key, _ in right], pa.string()),
        }
    )


def brute_force(left: pa.Table, right: pa.Table, spec: AsOf) -> list[dict[str, Any]]:
    """Written for clearness: no sorting, no library, every pair of rows."""
    joined = []
    for row in left.to_pylist():
        best: dict[str, Any] | None = None
        for candidate in right.to_pylist():
            if None in (row["key"], row["at"], candidate["known"]) or candidate["key"] != row["key"]:
                continue
            age_s = (row["at"] - candidate["known"]).total_seconds() - spec.offset_s
            if age_s < 0 or (spec.tolerance_s is not None and age_s > spec.tolerance_s):
                continue
            if best is None or candidate["known"] >= best["known"]:
                best = candidate
        taken = {f"right_{name}": best[name] if best else None for name in spec.columns}
        joined.append({**row, **taken})
    return joined


@given(rows, rows, specs)
def test_the_join_is_the_brute_force_join(left: list[Row], right: list[Row], spec: AsOf) -> None:
    tables = left_table(left), right_table(right)
    assert asof_merge(*tables, spec).to_pylist() == brute_force(*tables, spec)


@given(rows, rows, specs)
def test_shifting_the_right_side_an_hour_later_changes_what_brute_force_changes(
    left: list[Row], right: list[Row], spec: AsOf
) -> None:
    shifted = right_table(right, HOUR)
    joined = asof_merge(left_table(left), shifted, spec)
    assert joined.to_pylist() == brute_force(left_table(left), shifted, spec)
    an_hour_earlier = spec.model_copy(update={"offset_s": spec.offset_s + 3600})
    assert joined.equals(asof_merge(left_table(left), right_table(right), an_hour_earlier))


@given(rows, rows, specs, st.integers(1, 7))
def test_the_join_does_not_depend_on_the_cut_of_the_left_side(
    left: list[Row], right: list[Row], spec: AsOf, size: int
) -> None:
    table = left_table(left)
    parts = [asof_merge(table.slice(start, size), right_table(right), spec) for start in range(0, len(left), size)]
    whole = asof_merge(table, right_table(right), spec)
    assert (pa.concat_tables(parts) if parts else whole).equals(whole)


def test_the_instant_itself_is_known_and_the_last_of_equal_rows_is_taken() -> None:
    spec = AsOf(by="key", left_on="at", right_on="known", columns=("value",), offset_s=3600)
    right = right_table([("a", 0), ("a", 60), ("a", 60), ("a", 61)])
    assert asof_merge(left_table([("a", 120), ("a", 119), ("a", 59)]), right, spec)["value"].to_pylist() == [2, 0, None]


def test_types_stay_as_they_are_when_values_are_missing() -> None:
    spec = AsOf(by="key", left_on="at", right_on="known", columns=("value", "name"))
    joined = asof_merge(left_table([("a", 0), ("b", 5)]), right_table([("a", 0)]), spec)
    assert joined["value"].type == pa.int64()
    assert joined["value"].to_pylist() == [0, None]


def test_whole_number_keys_meet_across_missing_ones() -> None:
    spec = AsOf(by="key", left_on="at", right_on="known", columns=("value",))
    large = 2**53
    times = pa.array([START, START], TIME)
    left = pa.table({"key": pa.array([large + 1, None], pa.int64()), "at": times})
    right = pa.table({"key": pa.array([large, large + 1], pa.int64()), "known": times, "value": [10, 11]})
    assert asof_merge(left, right, spec)["value"].to_pylist() == [11, None]


def test_missing_columns_and_collisions_are_named() -> None:
    left, right = left_table([("a", 0)]), right_table([("a", 0)])
    spec = AsOf(by="key", left_on="at", right_on="known", columns=("value",))
    with pytest.raises(DataError, match="the left table of the as-of join lacks when"):
        asof_merge(left, right, spec.model_copy(update={"left_on": "when"}))
    with pytest.raises(DataError, match="the right table of the as-of join lacks wind, rain"):
        asof_merge(left, right, spec.model_copy(update={"columns": ("wind", "rain")}))
    with pytest.raises(DataError, match="would overwrite n of the left table"):
        asof_merge(
            left, right.rename_columns(["known", "n", "name", "key"]), spec.model_copy(update={"columns": ("n",)})
        )


@pytest.mark.ray
def test_on_ray_data_the_join_is_the_same_however_blocks_are_cut(ray_cluster: None) -> None:
    import ray

    spec = AsOf(by="key", left_on="at", right_on="known", columns=("value", "name"), prefix="right_", tolerance_s=7200)
    left = left_table([("abc"[n % 3] if n % 7 else None, n * 13 % 300 if n % 5 else None) for n in range(60)])
    right = right_table([("abc"[n % 4 % 3], n * 7 % 280) for n in range(50)])
    with ray_data():
        for left_blocks, right_blocks in ((1, 1), (7, 3)):
            joined = asof_join(
                ray.data.from_arrow(left).repartition(left_blocks),
                ray.data.from_arrow(
                    [right.slice(n * 17, 17) for n in range(right_blocks)] if right_blocks > 1 else right
                ),
                spec,
            )
            assert sorted(joined.take_all(), key=lambda row: row["n"]) == brute_force(left, right, spec)


@pytest.mark.ray
def test_a_mistake_found_in_a_task_is_raised_as_itself(ray_cluster: None) -> None:
    import ray

    spec = AsOf(by="key", left_on="when", right_on="known", columns=("value",))
    with pytest.raises(DataError, match="lacks when") as caught, ray_data():
        asof_join(
            ray.data.from_arrow(left_table([("a", 0)])), ray.data.from_arrow(right_table([("a", 0)])), spec
        ).take_all()
    assert type(caught.value) is DataError
