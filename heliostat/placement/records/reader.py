"""Which source a file's rows are from, told by their columns. Pure."""

import csv
from pathlib import Path

from heliostat.errors import DataError
from heliostat.placement.measured_run import Run
from heliostat.placement.records.llmfoundry import llmfoundry_run
from heliostat.placement.records.megatron import korthikanti_run, vtrain_run
from heliostat.placement.records.torchtitan import torchtitan_run


def read_runs(folder: Path) -> list[Run]:
    """Every run with a step time in the CSV files of `folder`, in the order of the files' names.

    Raises:
        DataError: no file there has known columns, or a row names a model that is not known.
        UserError: a device has a name that neither the catalogue nor `measured_run.NAMES` knows.
    """
    found: list[Run] = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found += [run for run in map(_read, csv.DictReader(file)) if run is not None]
    if not found:
        raise DataError(
            "no CSV file with measured runs",
            where=str(folder),
            next_step="give files with the columns of vtrain_measured.csv, llmfoundry_measured.csv, "
            "torchtitan_measured.csv or korthikanti2022_reference.csv",
        )
    return found


def _read(row: dict[str, str]) -> Run | None:
    if "iter_time_ms" in row:
        return vtrain_run(row)
    if "tokens_per_s_per_gpu" in row:
        return llmfoundry_run(row)
    if "tps_per_gpu" in row:
        return torchtitan_run(row)
    return korthikanti_run(row) if row.get("metric") == "iteration_time_s" else None
