"""What the model is told about a flight: what is known an hour before its scheduled departure.

Row-wise numpy on float64 and object columns (see `heliostat.data.columns`); the same code fills the training table and
answers HTTP requests. A value that is missing stays missing (NaN), and the encoder gives it the mean. Nothing here
names a month or a date: the model is judged on months it has never seen. The temperature alone is left out for the same
reason, as it tells the season above all.
"""

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet

Numbers = NDArray[np.float64]
Strings = NDArray[np.object_]

SEASON_YEAR = 2013
CRUISE_MILES_PER_MINUTE = 8.0
"""480 mph: what a flight of this distance would take in the air; the rest of its scheduled time is slack."""


def transform(columns: Columns) -> Columns:
    """All features, from all inputs."""
    return {**schedule(columns), **recent_delay(columns), **plane(columns), **weather(columns), **categories(columns)}


def schedule(columns: Columns) -> Columns:
    """When and how far the flight goes, and how busy the airport is then."""
    departure = minutes_of_day(columns["sched_dep_time"])
    block = minutes_between(departure, minutes_of_day(columns["sched_arr_time"]))
    angle = departure * (2 * np.pi / 1440)
    return {
        "departure_sin": np.sin(angle),
        "departure_cos": np.cos(angle),
        "hours_since_4am": minutes_between(240.0, departure) / 60,
        "weekend": (columns["weekday"] >= 6).astype(np.float64),
        "block_hours": block / 60,
        "slack_hours": (block - columns["distance"] / CRUISE_MILES_PER_MINUTE) / 60,
        "log_distance": np.log1p(columns["distance"]),
        "log_traffic": np.log(columns["origin_hour_flights"]),
    }


def recent_delay(columns: Columns) -> Columns:
    """How late the origin has been running."""
    return {
        "recent_delay_hours": columns["origin_delay"] / 60,
        "recent_delay_unknown": is_missing(columns["origin_delay"]),
    }


def plane(columns: Columns) -> Columns:
    """How old and how large the plane is."""
    age = np.maximum(SEASON_YEAR - columns["plane_year"], 0)
    return {
        "log_plane_age": np.log1p(age),
        "plane_unknown": is_missing(columns["plane_year"]),
        "log_seats": np.log1p(columns["plane_seats"]),
    }


def weather(columns: Columns) -> Columns:
    """Wind as a vector, and what makes runways slow: rain, ice, fog."""
    east, north = wind_vector(columns["wind_speed"], columns["wind_dir"])
    precip, visib = columns["precip"], columns["visib"]
    return {
        "dew_spread": columns["temp"] - columns["dewp"],
        "relative_humidity": columns["humid"],
        "wind_east": east,
        "wind_north": north,
        "wind_mph": columns["wind_speed"],
        "gust_excess_mph": gust_excess(columns["wind_gust"], columns["wind_speed"]),
        "log_rain": np.log1p(100 * precip),
        "wet": flag(precip > 0, precip),
        "visibility": visib,
        "low_visibility": flag(visib < 3, visib),
        "icy": flag((columns["temp"] <= 34) & ((precip > 0) | (visib < 5)), columns["temp"] + precip + visib),
    }


def categories(columns: Columns) -> Columns:
    """Who flies where, and the hour and the day by name."""
    hours = minutes_of_day(columns["sched_dep_time"]) // 60
    return {
        "airline": columns["carrier"],
        "from_airport": columns["origin"],
        "to_airport": columns["dest"],
        "airline_at_origin": pairs(columns["carrier"], columns["origin"]),
        "departure_hour": names(hours),
        "day_of_week": names(columns["weekday"]),
    }


def minutes_of_day(clock: Numbers) -> Numbers:
    """HHMM as minutes since midnight."""
    return clock // 100 * 60 + clock % 100


def minutes_between(start: Numbers | float, end: Numbers) -> Numbers:
    """Minutes from one time of day to the next occurrence of another, 0 to 1439."""
    return (end - start) % 1440


def wind_vector(speed: Numbers, direction: Numbers) -> tuple[Numbers, Numbers]:
    """The wind's components towards east and north; calm air has no direction."""
    angle = np.deg2rad(np.where(speed == 0, 0.0, direction))
    return -speed * np.sin(angle), -speed * np.cos(angle)


def gust_excess(gust: Numbers, speed: Numbers) -> Numbers:
    """How far gusts exceed the wind; no gust is reported when there is none."""
    return np.where(np.isnan(gust), 0.0, np.maximum(gust - speed, 0.0))


def flag(condition: NDArray[np.bool_], source: Numbers) -> Numbers:
    """1 where the condition holds, 0 where not, missing where its source is."""
    return np.where(np.isnan(source), np.nan, condition)


def is_missing(values: Numbers) -> Numbers:
    """1 where there is no value."""
    return np.isnan(values).astype(np.float64)


def pairs(left: Strings, right: Strings) -> Strings:
    """Two categories as one."""
    return np.array([f"{a} {b}" for a, b in zip(left, right, strict=True)], dtype=object)


def names(numbers: Numbers) -> Strings:
    """Whole numbers as categories."""
    return np.array([f"{int(number)}" for number in numbers], dtype=object)


def number(name: str, description: str, example: float, **bounds: float) -> InputColumn:
    """A number that a request may leave out."""
    return InputColumn(name=name, kind="number", description=description, example=example, nullable=True, **bounds)


def integer(name: str, description: str, example: int, **bounds: float) -> InputColumn:
    """A whole number that every request has."""
    return InputColumn(name=name, kind="integer", description=description, example=example, **bounds)


FEATURES = FeatureSet(
    inputs=(
        InputColumn(name="carrier", kind="string", description="airline, two-letter code", example="UA"),
        InputColumn(name="origin", kind="string", description="airport of departure: EWR, JFK or LGA", example="EWR"),
        InputColumn(name="dest", kind="string", description="airport of arrival", example="IAH"),
        integer("weekday", "local day of departure, Monday is 1", 2, minimum=1, maximum=7),
        integer("sched_dep_time", "scheduled departure, local HHMM", 1715, minimum=0, maximum=2359),
        integer("sched_arr_time", "scheduled arrival, HHMM local to the destination", 2024, minimum=0, maximum=2359),
        integer("distance", "miles between the airports", 1400, minimum=0),
        integer("origin_hour_flights", "flights scheduled from the origin in that clock hour", 22, minimum=1),
        number("origin_delay", "mean delay of departures from the origin in the latest hour, minutes", 12.5),
        number("plane_year", "year in which the plane was built", 1999, minimum=1900),
        number("plane_seats", "seats of the plane", 149, minimum=0),
        number("temp", "temperature, F", 39.0),
        number("dewp", "dew point, F", 28.0),
        number("humid", "relative humidity, %", 64.4, minimum=0, maximum=100),
        number("wind_dir", "where the wind comes from, degrees", 260, minimum=0, maximum=360),
        number("wind_speed", "wind, mph", 12.7, minimum=0),
        number("wind_gust", "gusts, mph; leave out when there are none", 21.9, minimum=0),
        number("precip", "precipitation, inches in the hour", 0.0, minimum=0),
        number("visib", "visibility, miles", 10.0, minimum=0),
    ),
    numeric=(
        "departure_sin",
        "departure_cos",
        "hours_since_4am",
        "weekend",
        "block_hours",
        "slack_hours",
        "log_distance",
        "log_traffic",
        "recent_delay_hours",
        "recent_delay_unknown",
        "log_plane_age",
        "plane_unknown",
        "log_seats",
        "dew_spread",
        "relative_humidity",
        "wind_east",
        "wind_north",
        "wind_mph",
        "gust_excess_mph",
        "log_rain",
        "wet",
        "visibility",
        "low_visibility",
        "icy",
    ),
    categorical=(
        "airline",
        "from_airport",
        "to_airport",
        "airline_at_origin",
        "departure_hour",
        "day_of_week",
    ),
    transform=transform,
)
