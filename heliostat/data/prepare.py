"""What the user's data preparation returns, and how Ray Data runs here.

    def prepare(options: Mapping[str, Any]) -> Prepared: ...

With a feature set it returns raw rows: every input column, and the label. Features, statistics and storage are ours.
Without one it returns what the model takes: numbers, strings, sequences of whole numbers; with the files that the task
needs to understand them, such as a tokenizer.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray.data import DataContext, Dataset
from ray.exceptions import RayTaskError

from heliostat.data.files import check_names
from heliostat.errors import DataError, HeliostatError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Rows by split, how many were left out for which reason, and files that belong to them: name -> content.

    Raises:
        DataError: the splits are not train, validation and test, or a file has no plain name.
    """

    splits: Mapping[str, Dataset]
    dropped: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise DataError(
                f"the preparation must return the splits {', '.join(SPLITS)}", got=", ".join(self.splits) or "no split"
            )
        check_names(self.files)


def run_prepare(prepare: Callable[[Mapping[str, Any]], Prepared], options: Mapping[str, Any]) -> Prepared:
    """Call the user's `prepare` with the options of the experiment.

    Raises:
        DataError: it returned something else than `Prepared`, or found something wrong with the data.
    """
    with ray_data():
        prepared = prepare(options)
    if not isinstance(prepared, Prepared):
        raise DataError(
            "the preparation must return heliostat.data.prepare.Prepared",
            where=f"{prepare.__module__}:{prepare.__qualname__}",
            got=type(prepared).__name__,
        )
    return prepared


@contextmanager
def ray_data() -> Iterator[None]:
    """Ray Data as we use it: silent, and an error of ours that a task raises is raised here as itself."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, HeliostatError):
            raise error.cause from None
        raise
