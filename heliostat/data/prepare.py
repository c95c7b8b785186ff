"""What the user's data preparation returns, and the one place that runs it.

    def prepare(options: Mapping[str, Any]) -> Prepared: ...

It returns raw rows: every input column of the feature set, and the label. Features, statistics and storage are ours.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.data import DataContext, Dataset

from heliostat.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Raw rows by split, and how many rows were left out for which reason."""

    splits: Mapping[str, Dataset]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise DataError(
                f"the preparation must return the splits {', '.join(SPLITS)}", got=", ".join(self.splits) or "no split"
            )


def run_prepare(prepare: Callable[[Mapping[str, Any]], Prepared], options: Mapping[str, Any]) -> Prepared:
    """Call the user's `prepare` with the options of the experiment.

    Raises:
        DataError: it returned something else than `Prepared`.
    """
    quiet_ray_data()
    prepared = prepare(options)
    if not isinstance(prepared, Prepared):
        raise DataError(
            "the preparation must return heliostat.data.prepare.Prepared",
            where=f"{prepare.__module__}:{prepare.__qualname__}",
            got=type(prepared).__name__,
        )
    return prepared


def quiet_ray_data() -> None:
    """No progress bars and no log lines below warnings from Ray Data in this process."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
