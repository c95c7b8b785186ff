"""The features of a tumour."""

from helpers import normalize

from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet


def transform(columns: Columns) -> Columns:
    """All features."""
    return {
        "log_radius": normalize(columns["radius"]),
        "log_texture": normalize(columns["texture"]),
        "size_class": columns["size"],
    }


FEATURES = FeatureSet(
    inputs=(
        InputColumn(name="radius", kind="number", description="mean radius", minimum=0, example=14.0),
        InputColumn(name="texture", kind="number", description="mean texture", nullable=True, example=19.0),
        InputColumn(name="size", kind="string", description="size class", example="medium"),
    ),
    numeric=("log_radius", "log_texture"),
    categorical=("size_class",),
    transform=transform,
)
