"""From feature columns to arrays: numbers standardised, categories numbered, both by the train split alone.

The encoder is a value, not a pickled object: it is JSON in the dataset's manifest and in the model's package, and the
same file encodes on any machine.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Columns
from heliostat.data.statistics import ColumnStatistics
from heliostat.values import Frozen

SIGNIFICANT_DIGITS = 9
"""Means and scales are kept to this many digits: the order in which blocks were merged shows only beyond them."""


class Scale(Frozen):
    """How a numeric feature is standardised: `(value - mean) / deviation`."""

    name: str
    mean: float
    deviation: float


class Vocabulary(Frozen):
    """The known values of a categorical feature, in the order of their numbers 1..K."""

    name: str
    values: tuple[str, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Value -> its number, from 1; 0 is for all that is not here."""
        return {value: number for number, value in enumerate(self.values, start=1)}


class Encoder(Frozen):
    """Fitted on the train split's statistics; turns feature columns into what a model takes.

    A missing number becomes 0, which is the train mean after standardising. A missing or unknown category becomes 0; no
    row of the train split teaches a model what 0 means unless a category is missing there, so embed it as zeros
    (`padding_idx=0`).
    """

    numeric: tuple[Scale, ...]
    categorical: tuple[Vocabulary, ...]

    @classmethod
    def fit(
        cls,
        statistics: Mapping[str, ColumnStatistics],
        *,
        numeric: tuple[str, ...],
        categorical: tuple[str, ...],
    ) -> Self:
        """The encoder of these features, in this order; a constant column keeps deviation 1."""
        return cls(
            numeric=tuple(_scale(name, statistics[name]) for name in numeric),
            categorical=tuple(
                Vocabulary(name=name, values=tuple(sorted(statistics[name].categories))) for name in categorical
            ),
        )

    @property
    def num_numeric(self) -> int:
        """Numeric features, F."""
        return len(self.numeric)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Numbers each categorical feature may take: its known values and 0."""
        return tuple(len(vocabulary.values) + 1 for vocabulary in self.categorical)

    def encode(self, features: Columns) -> dict[str, NDArray[Any]]:
        """`numeric` float32 (n, F) and `categorical` int64 (n, C) of n rows of features."""
        num_rows = len(next(iter(features.values())))
        numeric = np.zeros((num_rows, len(self.numeric)), dtype=np.float32)
        for position, scale in enumerate(self.numeric):
            standard = (features[scale.name] - scale.mean) / scale.deviation
            numeric[:, position] = np.where(np.isnan(standard), 0.0, standard)
        categorical = np.zeros((num_rows, len(self.categorical)), dtype=np.int64)
        for position, vocabulary in enumerate(self.categorical):
            categorical[:, position] = [vocabulary.numbers.get(value, 0) for value in features[vocabulary.name]]
        return {"numeric": numeric, "categorical": categorical}


def _scale(name: str, statistics: ColumnStatistics) -> Scale:
    deviation = _rounded(statistics.deviation)
    return Scale(name=name, mean=_rounded(statistics.mean), deviation=deviation if deviation > 0 else 1.0)


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
