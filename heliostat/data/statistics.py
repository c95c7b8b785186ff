"""What a column holds, in one pass over blocks whose partial results merge.

Mean and squared deviation merge by the pairwise update of Chan, Golub and LeVeque (1979), which loses no digits on
columns whose mean is large against their spread.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from heliostat.data.columns import Columns
from heliostat.errors import DataError
from heliostat.values import Frozen


class ColumnStatistics(Frozen):
    """One column's values in figures: a number column fills mean to maximum, a string column fills `categories`."""

    num_rows: NonNegativeInt
    num_missing: NonNegativeInt
    mean: float = 0.0
    squared_deviation: NonNegativeFloat = 0.0
    """Sum over rows of (value - mean) squared."""
    minimum: float | None = None
    maximum: float | None = None
    categories: dict[str, int] = Field(default_factory=dict)
    """Value -> rows that hold it, complete."""

    @property
    def num_values(self) -> int:
        """Rows that are not missing."""
        return self.num_rows - self.num_missing

    @property
    def deviation(self) -> float:
        """Population standard deviation; 0 for a constant or an empty column."""
        return float(np.sqrt(self.squared_deviation / self.num_values)) if self.num_values else 0.0


def summarise(columns: Columns) -> dict[str, ColumnStatistics]:
    """The statistics of every column, by its storage type.

    Raises:
        DataError: a number column holds an infinity.
    """
    return {
        name: _strings(values) if values.dtype == object else _numbers(name, values) for name, values in columns.items()
    }


def merge(a: dict[str, ColumnStatistics], b: dict[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """The statistics of the rows of `a` and `b` together; both describe the same columns."""
    return {name: _merge_column(a[name], b[name]) for name in a}


def _numbers(name: str, values: NDArray[Any]) -> ColumnStatistics:
    known = values[~np.isnan(values)]
    if np.isinf(known).any():
        raise DataError(
            f"column {name} holds an infinity",
            got=f"{int(np.isinf(known).sum())} of {len(values)} rows",
            causes=["a division by zero, or a logarithm of zero, in the features"],
        )
    if len(known) == 0:
        return ColumnStatistics(num_rows=len(values), num_missing=len(values))
    mean = float(known.mean())
    return ColumnStatistics(
        num_rows=len(values),
        num_missing=len(values) - len(known),
        mean=mean,
        squared_deviation=float(np.square(known - mean).sum()),
        minimum=float(known.min()),
        maximum=float(known.max()),
    )


def _strings(values: NDArray[Any]) -> ColumnStatistics:
    counts = Counter(values)
    num_missing = counts.pop(None, 0)
    return ColumnStatistics(num_rows=len(values), num_missing=num_missing, categories=dict(sorted(counts.items())))


def _merge_column(a: ColumnStatistics, b: ColumnStatistics) -> ColumnStatistics:
    count = max(a.num_values + b.num_values, 1)
    shift = b.mean - a.mean
    categories = {
        name: a.categories.get(name, 0) + b.categories.get(name, 0) for name in {**a.categories, **b.categories}
    }
    return ColumnStatistics(
        num_rows=a.num_rows + b.num_rows,
        num_missing=a.num_missing + b.num_missing,
        mean=a.mean + shift * b.num_values / count,
        squared_deviation=a.squared_deviation
        + b.squared_deviation
        + shift * shift * a.num_values * b.num_values / count,
        minimum=min((value for value in (a.minimum, b.minimum) if value is not None), default=None),
        maximum=max((value for value in (a.maximum, b.maximum) if value is not None), default=None),
        categories=dict(sorted(categories.items())),
    )
