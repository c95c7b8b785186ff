"""The features."""

import numpy as np

from delays.clock import hours  # type: ignore[import-not-found]  # found by its own root, as a user's package is
from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet


def transform(columns: Columns) -> Columns:
    """Row-wise, as a FeatureSet wants it."""
    return {
        "hour": hours(columns["dep time"]),
        "log_distance": np.log1p(columns["distance"]),
        "seats_known": np.where(np.isnan(columns["seats"]), 0.0, 1.0),
        "airline": columns["carrier"],
    }


FEATURES = FeatureSet(
    inputs=(
        InputColumn(name="carrier", kind="string", description="Airline", example="UA"),
        InputColumn(name="dep time", kind="integer", description="HHMM", minimum=0, maximum=2359, example=1715),
        InputColumn(name="distance", kind="number", description="Miles", minimum=0, example=1400.5),
        InputColumn(name="seats", kind="integer", description="Seats of the plane", minimum=1, nullable=True),
        InputColumn(name="copy", kind="string", description="A field of an awkward name", nullable=True),
    ),
    numeric=("hour", "log_distance", "seats_known"),
    categorical=("airline",),
    transform=transform,
)
