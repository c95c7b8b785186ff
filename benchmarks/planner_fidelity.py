"""Predicted against measured step time, on runs that other people measured.

    python benchmarks/planner_fidelity.py --data DIR [--json FILE] [--refit] [--rows]

`DIR` holds CSV files with the columns of vtrain_measured.csv, llmfoundry_measured.csv, torchtitan_measured.csv or
korthikanti2022_reference.csv. The constants are those of heliostat/placement/efficiency.yaml; rows of model shapes
(hidden, layers, heads, seq_len) that they were fitted on are reported apart from the test rows. With `--refit` they are
fitted anew on the rows of `DIR` whose shape has an even digest. With history: for each shape block times are learned
from the measured runs of all other shapes of `DIR` (`placement.history`), for equal layers in models of other depth.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from heliostat.placement.efficiency import Efficiencies, fitted
from heliostat.placement.fit import fit, is_fitted_on, predict_runs
from heliostat.placement.history import predict_from_others
from heliostat.placement.measured_run import Run
from heliostat.placement.memory import replica_memory
from heliostat.placement.records import read_runs
from heliostat.placement.step_time import StepPrediction

GIB = 1 << 30


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--rows", action="store_true", help="print every row")
    options = parser.parse_args()
    runs = read_runs(options.data)
    constants = fit([run for run in runs if is_fitted_on(run.shape)]) if options.refit else fitted()
    predictions = predict_runs(runs, constants)
    report = {
        "split": split(runs, constants),
        "time": time_table(runs, predictions, constants),
        "time_with_history": time_table(runs, predict_from_others(runs, constants), constants),
        "band": band(runs, predictions, constants),
        "memory": memory_table(runs, predictions),
    }
    show(report)
    if options.rows:
        for run, one in zip(runs, predictions, strict=True):
            print(f"{run.source:20} {run.shape:26} {run.label:60.60} {run.measured_s:9.3f} {one.step_s:9.3f} s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def split(runs: Sequence[Run], constants: Efficiencies) -> dict[str, dict[str, list[str]]]:
    """The shapes of each source that were fitted on, and those that test."""
    found: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        part = "fit" if run.shape in constants.fitted_on else "test"
        found.setdefault(run.source, {"fit": set(), "test": set()})[part].add(run.shape)
    return {source: {part: sorted(shapes) for part, shapes in parts.items()} for source, parts in found.items()}


def time_table(
    runs: Sequence[Run], predictions: Sequence[StepPrediction], constants: Efficiencies
) -> list[dict[str, Any]]:
    """Errors by source and part."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run, one in zip(runs, predictions, strict=True):
        for part in ("fit" if run.shape in constants.fitted_on else "test", "all"):
            groups.setdefault((run.source, part), []).append((one.step_s, run.measured_s))
    found = []
    for (source, part), pairs in sorted(groups.items()):
        predicted, measured = (np.array(column) for column in zip(*pairs, strict=True))
        error = predicted / measured - 1
        rank = float(spearmanr(predicted, measured).statistic) if len(pairs) > 2 else float("nan")
        found.append(
            {
                "source": source,
                "part": part,
                "rows": len(pairs),
                "mape": float(np.abs(error).mean()),
                "p90": float(np.quantile(np.abs(error), 0.9)),
                "median": float(np.median(error)),
                "worst": float(np.abs(error).max()),
                "spearman": rank,
            }
        )
    return found


def band(runs: Sequence[Run], predictions: Sequence[StepPrediction], constants: Efficiencies) -> list[dict[str, Any]]:
    """How many test rows lie within the 80 % band that the fitted uncertainty gives."""
    inside: dict[str, list[bool]] = {}
    for run, one in zip(runs, predictions, strict=True):
        if run.shape not in constants.fitted_on:
            low_s, high_s = one.band_s
            inside.setdefault(run.source, []).append(low_s <= run.measured_s <= high_s)
    return [{"source": source, "rows": len(hits), "inside": sum(hits) / len(hits)} for source, hits in inside.items()]


def memory_table(runs: Sequence[Run], predictions: Sequence[StepPrediction]) -> list[dict[str, Any]]:
    """Predicted and measured peak memory of the runs that state it."""
    found = []
    for run, one in zip(runs, predictions, strict=True):
        if run.memory_gib is None:
            continue
        uses = replica_memory(run.workload, run.strategy, one.in_flight)
        # the sources state what the allocator took, without the context
        context = run.strategy.execution.context_bytes
        predicted = (max(use.total for stage in uses for use in stage) - context) / GIB
        found.append(
            {
                "source": run.source,
                "run": f"{run.workload.name} {run.label}",
                "measured_gib": run.memory_gib,
                "predicted_gib": round(predicted, 2),
                "error": predicted / run.memory_gib - 1,
            }
        )
    return found


def show(report: dict[str, Any]) -> None:
    """Print a report."""
    print("Model shapes (hidden, layers, attention heads, sequence)")
    for source, parts in report["split"].items():
        for part, shapes in parts.items():
            print(f"  {source:20} {part:5} {', '.join(shapes) or 'none'}")
    for title, key in (("step time", "time"), ("with history", "time_with_history")):
        print(f"\n{title:20} {'rows of':8} {'n':>5} {'MAPE':>7} {'P90':>7} {'median':>7} {'worst':>7} {'Spearman':>9}")
        for row in report[key]:
            if key == "time_with_history" and row["part"] != "test":
                continue
            print(
                f"{row['source']:20} {row['part']:8} {row['rows']:5} {row['mape']:7.2%} {row['p90']:7.2%}"
                f" {row['median']:+7.2%} {row['worst']:7.2%} {row['spearman']:9.3f}"
            )
    print("\n80 % band: share of the test rows inside")
    for row in report["band"]:
        print(f"  {row['source']:20} {row['rows']:5} {row['inside']:7.1%}")
    if report["memory"]:
        print("\nPeak memory, GiB per device")
        for row in report["memory"]:
            print(f"  {row['measured_gib']:6.1f} {row['predicted_gib']:6.1f} {row['error']:+7.1%}  {row['run']}")
        errors = [abs(row["error"]) for row in report["memory"]]
        print(f"  MAPE {np.mean(errors):.2%}, worst {max(errors):.2%}, {len(errors)} rows")


if __name__ == "__main__":
    main()
