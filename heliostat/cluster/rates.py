"""Rates and times as people write them: in one of several units."""

from typing import Self

from pydantic import NonNegativeFloat, PositiveFloat, model_validator

from heliostat.values import Frozen


class RateRow(Frozen):
    """A rate and a latency, each in one unit at most."""

    bytes_per_s: PositiveFloat | None = None
    gb_per_s: PositiveFloat | None = None
    """10^9 bytes."""
    gbit_per_s: PositiveFloat | None = None
    latency_s: NonNegativeFloat | None = None
    latency_us: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _in_one_unit(self) -> Self:
        for units in (("bytes_per_s", "gb_per_s", "gbit_per_s"), ("latency_s", "latency_us")):
            given = [unit for unit in units if getattr(self, unit) is not None]
            if len(given) > 1:
                raise ValueError(f"give one of {' and '.join(given)}")
        return self

    @property
    def rate(self) -> float | None:
        """Bytes per second; None where none is given."""
        if self.gb_per_s is not None:
            return self.gb_per_s * 1e9
        return self.bytes_per_s if self.gbit_per_s is None else self.gbit_per_s * 1.25e8

    @property
    def latency(self) -> float | None:
        """Seconds; None where none is given."""
        return self.latency_s if self.latency_us is None else self.latency_us / 1e6
