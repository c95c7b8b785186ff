"""What the model is told about a flight, from what is known an hour before its scheduled departure.

Everything is row-wise numpy on float64 and object columns (see `heliostat.data.columns`): the same code fills the
training table and answers HTTP requests. Nothing here names a month or a date: the model is judged on months that it has
never seen.
"""

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet

Numbers = NDArray[np.float64]

INPUTS = (
    InputColumn(name="carrier", kind="string", description="Airline, two-letter code", example="UA"),
    InputColumn(name="origin", kind="string", description="Airport of departure: EWR, JFK or LGA", example="EWR"),
    InputColumn(name="dest", kind="string", description="Airport of arrival", example="IAH"),
    InputColumn(
        name="weekday", kind="integer", description="Local day, Monday is 1", minimum=1, maximum=7, example=2
    ),
    InputColumn(
        name="sched_dep_time",
        kind="integer",
        description="Scheduled departure, local time as HHMM",
        minimum=0,
        maximum=2359,
        example=1715,
    ),
    InputColumn(
        name="sched_arr_time",
        kind="integer",
        description="Scheduled arrival, local time at the destination as HHMM",
        minimum=0,
        maximum=2359,
        example=2024,
    ),
    InputColumn(name="distance", kind="number", description="Miles between the airports", minimum=0, example=1400),
    InputColumn(
        name="plane_year", kind="number", description="Year the plane was built", nullable=True, example=1999
    ),
    InputColumn(name="plane_seats", kind="number", description="Seats of the plane", nullable=True, example=149),
    InputColumn(
        name="origin_hour_flights",
        kind="integer",
        description="Flights scheduled from the origin within the same clock hour, this one included",
        minimum=1,
        example=22,
    ),
    InputColumn(name="temp", kind="number", description="Temperature, F", nullable=True, example=39.0),
    InputColumn(name="dewp", kind="number", description="Dew point, F", nullable=True, example=28.0),
    InputColumn(
        name="humid", kind="number", description="Relative humidity, %", nullable=True, minimum=0, maximum=100, example=64.4
    ),
    InputColumn(
        name="wind_dir",
        kind="number",
        description="Direction the wind comes from, degrees; 0 when calm",
        nullable=True,
        minimum=0,
        maximum=360,
        example=260,
    ),
    InputColumn(
        name="wind_speed", kind="number", description="Wind speed, mph", nullable=True, minimum=0, example=12.7
    ),
    InputColumn(
        name="wind_gust", kind="number", description="Gusts, mph; missing without gusts", nullable=True, minimum=0, example=21.9
    ),
    InputColumn(
        name="precip", kind="number", description="Precipitation, inches an hour", nullable=True, minimum=0, example=0.0
    ),
    InputColumn(name="pressure", kind="number", description="Sea level pressure, millibars", nullable=True, example=1012.0),
    InputColumn(
        name="visib", kind="number", description="Visibility, miles", nullable=True, minimum=0, maximum=10, example=10.0
    ),
)

NUMERIC = (
    *("departure_sin", "departure_cos", "departure_hours", "weekend", "block_hours", "slack_hours", "log_distance"),
    *("log_plane_age", "plane_unknown", "log_seats", "log_traffic", "hour_into_day"),
    *("air_temp", "dew_point", "dew_spread", "relative_humidity", "wind_east", "wind_north", "wind_mph", "gust_mph", "log_rain", "wet", "low_pressure", "haze", "low_visibility", "freezing_wet"),
)
