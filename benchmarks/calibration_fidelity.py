"""How far calibrations repeat themselves, and how well a curve predicts fresh measurements.

    python benchmarks/calibration_fidelity.py [--ranks 2 4] [--seconds 120] [--json FILE]

For each number of ranks a local Ray cluster with as many cores in its books, whatever the machine has, is calibrated
three times. The first two are compared. The third is the fresh measurement that the curves of the first predict; half
of its sizes lie between theirs. What other processes took of the machine meanwhile is printed with it.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import ray
from rich.console import Console
from rich.table import Table

from heliostat.cluster.machine import Device
from heliostat.cluster.measured import Curve, DeviceRates, Measured
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.train.calibrate_cluster import calibrate_cluster
from heliostat.train.effort import FULL, Effort

AGREEMENT, PREDICTION = 0.15, 0.20
"""What is wanted: of two calibrations, and of a prediction of all-reduce."""
console = Console(width=140)


class Pass(NamedTuple):
    """One calibration."""

    measured: Measured
    wall_s: float
    others: float
    """Share of the machine's processor time that went to processes which are not ours."""


def main() -> None:
    """Calibrate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=FULL.collectives_s, help="for the collectives of one group")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    effort = FULL.model_copy(update={"collectives_s": arguments.seconds})
    sizes = effort.message_bytes
    between = ((a + b) // 2 for a, b in pairwise(sizes))
    fresh = effort.model_copy(update={"message_bytes": tuple(sorted((*sizes, *between)))})
    results = {}
    for num_ranks in arguments.ranks:
        passes = calibrations(num_ranks, [effort, effort, fresh])
        console.rule(f"{num_ranks} devices of one core each, {os.cpu_count()} cores in the machine")
        for name, one in zip(("first", "second", "fresh"), passes, strict=True):
            console.print(f"{name}: {one.wall_s:.0f} s, other processes took {one.others:.0%} of the machine")
        results[num_ranks] = report(*(one.measured for one in passes))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def calibrations(num_ranks: int, efforts: list[Effort]) -> list[Pass]:
    """Calibrate a cluster of `num_ranks` cores once with each effort."""
    os.environ["RAY_worker_niceness"] = "0"  # as `heliostat run` starts its own cluster  # noqa: SIM112
    ray.init(address="local", num_cpus=num_ranks, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        devices = [Device(type="cpu", index=index, memory_bytes=1 << 30) for index in range(num_ranks)]
        cluster = ClusterSpec(nodes=(Node.of(ray.nodes()[0]["NodeID"], devices),), origin="live")
        return [calibration(cluster, effort) for effort in efforts]
    finally:
        ray.shutdown()


def calibration(cluster: ClusterSpec, effort: Effort) -> Pass:
    """Calibrate once."""
    clocks = []

    def look(done: int, total: int, what: str) -> None:
        console.print(f"[dim]{done}/{total} {what}")
        clocks.append((time.monotonic(), _busy_s(), _ours_s()))

    measured = calibrate_cluster(cluster, cpus_per_device=1, progress=look, effort=effort).measured
    assert measured is not None
    wall_s, busy_s, ours_s = (end - start for start, end in zip(clocks[0], clocks[-1], strict=True))
    return Pass(measured, wall_s, max(0.0, (busy_s - ours_s) / wall_s / (os.cpu_count() or 1)))


def report(first: Measured, second: Measured, fresh: Measured) -> dict[str, object]:
    """Print the comparisons; the same as plain values."""
    rows = []
    table = Table(
        title=f"relative differences by size; beyond {AGREEMENT:.0%} of two runs, {PREDICTION:.0%} of a prediction"
    )
    for name in ("operation", "group", "two runs", "median", "beyond", "prediction", "median", "beyond"):
        table.add_column(name)
    for a, b, c in zip(first.curves, second.curves, fresh.curves, strict=True):
        repeated = {one.num_bytes: _apart(one.seconds, b.time_s(one.num_bytes)) for one in a.samples}
        predicted = {one.num_bytes: a.time_s(one.num_bytes) / one.seconds - 1 for one in c.samples}
        figures = (*_summary(repeated, AGREEMENT), *_summary(predicted, PREDICTION))
        table.add_row(a.operation, str(a.group), *figures)
        rows.append({"operation": a.operation, "group": str(a.group), "repeated": repeated, "predicted": predicted})
    console.print(table)
    for curve, again, anew in zip(first.curves, second.curves, fresh.curves, strict=True):
        if curve.operation == "all_reduce":
            console.print(all_reduce_table(curve, again, anew))
    rates = {name: _apart(*pair) for name, pair in common_rates(first, second)}
    worst = max(rates, key=lambda name: rates[name])
    console.print(f"rates, two runs: max {rates[worst]:.1%} ({worst}), median {median(rates.values()):.1%}")
    return {"curves": rows, "rates": rates, "passes": [one.model_dump() for one in (first, second, fresh)]}


def all_reduce_table(first: Curve, second: Curve, fresh: Curve) -> Table:
    """Every size of one group."""
    table = Table(title=f"all_reduce among {first.group}, ms")
    for name in ("bytes", "first", "second", "fresh", "spread", "predicted", "error"):
        table.add_column(name, justify="right")
    known = [{one.num_bytes: one.seconds for one in curve.samples} for curve in (first, second)]
    for one in fresh.samples:
        runs = (f"{1e3 * found[one.num_bytes]:.3f}" if one.num_bytes in found else "" for found in known)
        predicted = first.time_s(one.num_bytes)
        table.add_row(
            _size(one.num_bytes),
            *runs,
            f"{1e3 * one.seconds:.3f}",
            f"{one.spread:.0%}",
            f"{1e3 * predicted:.3f}",
            f"{predicted / one.seconds - 1:+.0%}",
        )
    return table


def common_rates(first: Measured, second: Measured) -> Iterator[tuple[str, tuple[float, float]]]:
    """The rates that both calibrations have."""
    for kind in first.rates.keys() & second.rates.keys():
        named, again = _named(first.rates[kind]), _named(second.rates[kind])
        yield from ((f"{kind} {name}", (named[name], again[name])) for name in named if name in again)


def _named(rates: DeviceRates) -> dict[str, float]:
    return {**{f"{one.dtype} {one.size}": one.flops_per_s for one in rates.matmul}, "memory": rates.memory_bytes_per_s}


def _summary(differences: dict[int, float], wanted: float) -> tuple[str, str, str]:
    """The largest and where, the median, and how many are beyond what is wanted."""
    worst = max(differences, key=lambda size: abs(differences[size]))
    beyond = sum(abs(value) > wanted for value in differences.values())
    middle = median(abs(value) for value in differences.values())
    return f"{differences[worst]:+.0%} at {_size(worst)}", f"{middle:.1%}", f"{beyond} of {len(differences)}"


def _apart(a: float, b: float) -> float:
    return max(a, b) / min(a, b) - 1


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1024:g} KiB" if num_bytes < 1 << 20 else f"{num_bytes / (1 << 20):g} MiB"


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _ours_s() -> float:
    """Processor time of this process and all it started, those that ended included."""
    own = psutil.Process()
    return float(sum(sum(one.cpu_times()[:4]) for one in (own, *own.children(recursive=True))))


if __name__ == "__main__":
    main()
