"""Regret of the plan that the cost model ranks first, among plans that other people measured.

    python benchmarks/plan_selection.py --data DIR [--json FILE]

A group is all measured runs of one model, global batch and number of devices that differ in how they are split, three
at least. Regret: measured time of our choice over the best measured time, minus one. With history: for each model shape
(hidden, layers, heads, seq_len) block times are learned from the measured runs of all other shapes of `DIR`, where the
same layers are in models of other depth (`placement.history`).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heliostat.placement.efficiency import fitted
from heliostat.placement.fit import predict_runs
from heliostat.placement.history import predict_from_others
from heliostat.placement.measured_run import Run
from heliostat.placement.records import read_runs


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs, constants = read_runs(options.data), fitted()
    predicted = [one.step_s for one in predict_runs(runs, constants)]
    fresh = [place for place, run in enumerate(runs) if run.shape not in constants.fitted_on]
    corrected = [one.step_s for one in predict_from_others(runs, constants)]
    report = {
        "all shapes": regrets(runs, predicted),
        "test shapes": regrets([runs[at] for at in fresh], [predicted[at] for at in fresh]),
        "all shapes, with history": regrets(runs, corrected),
        "test shapes, with history": regrets([runs[at] for at in fresh], [corrected[at] for at in fresh]),
    }
    print(f"{'':28} {'groups':>7} {'mean':>8} {'median':>8} {'within 1 %':>11} {'worst':>8}")
    for name, groups in report.items():
        values = np.array([group["regret"] for group in groups])
        if len(values):
            print(
                f"{name:28} {len(values):7} {values.mean():8.2%} {np.median(values):8.2%}"
                f" {np.mean(values <= 0.01):11.1%} {values.max():8.2%}"
            )
    print("\nWorst choices over all shapes")
    for group in sorted(report["all shapes"], key=lambda one: -one["regret"])[:10]:
        print(f"  {group['regret']:7.2%} {group['group']}: chose {group['chosen']}, best {group['best']}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def regrets(runs: Sequence[Run], predicted: Sequence[float]) -> list[dict[str, Any]]:
    """The choice and its regret in each group of at least three distinct plans."""
    groups: dict[str, list[tuple[float, Run]]] = {}
    for run, step_s in zip(runs, predicted, strict=True):
        if len(run.strategy.stages) > 1 or run.source.startswith("vtrain"):
            groups.setdefault(f"{run.source}: {run.group}", []).append((step_s, run))
    found = []
    for name, members in groups.items():
        if len({run.label for _, run in members}) < 3:
            continue
        _, chosen = min(members, key=lambda one: (one[0], one[1].label))
        best = min((run for _, run in members), key=lambda run: run.measured_s)
        found.append(
            {
                "group": name,
                "plans": len({run.label for _, run in members}),
                "chosen": chosen.label,
                "best": best.label,
                "regret": chosen.measured_s / best.measured_s - 1,
            }
        )
    return found


if __name__ == "__main__":
    main()
