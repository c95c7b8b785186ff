"""How well fitted constants foretell measured runs, as a table for the terminal. Pure."""

from collections.abc import Sequence
from statistics import fmean, median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.fit import predict_runs
from heliostat.placement.measured_run import Run


def errors_table(runs: Sequence[Run], constants: Efficiencies) -> Table:
    """Relative errors of the step time by source, of model shapes that were fitted on and of others."""
    errors: dict[tuple[str, bool], list[float]] = {}
    for run, one in zip(runs, predict_runs(runs, constants), strict=True):
        key = (run.source, run.shape in constants.fitted_on)
        errors.setdefault(key, []).append(abs(one.step_s / run.measured_s - 1))
    table = Table(title="Error of the predicted step time", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for header in ("source", "model shapes", "runs", "mean", "median", "worst"):
        table.add_column(header, justify="left" if header in {"source", "model shapes"} else "right")
    for (source, fitted_on), found in sorted(errors.items()):
        part = "fitted on" if fitted_on else "others"
        table.add_row(
            source, part, f"{len(found):,}", f"{fmean(found):.1%}", f"{median(found):.1%}", f"{max(found):.1%}"
        )
    return table
