"""Predicted bandwidth of device sets against measurements made by others: does the order agree?

    python benchmarks/ring_bandwidth.py [--data DIR] [--json FILE]

DIR holds `allreduce_busbw_measured.csv` and `p2p_*.csv` (shared/reference/topology). The boxes are described here by
what their makers say of them; nothing is fitted to these rows.
"""

import argparse
import csv
import json
import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec, DeviceId

DATA = Path(__file__).parents[2] / "shared" / "reference" / "topology"
TWO_SOCKETS = [[f"GPU{a}", f"GPU{b}"] for a, b in combinations(range(8), 2) if (a < 4) == (b < 4)]
BOXES: dict[str, dict[str, Any]] = {
    "HGX A100": {"devices": "8 x A100-80GB-SXM", "links": "NV12"},
    "HGX H100": {"devices": "8 x H100-80GB-SXM", "links": "NV18"},
    "HGX H200": {"devices": "8 x H200", "links": "NV18"},
    "P6-B200": {"devices": "8 x B200", "links": "NV18", "nics": "8 x 400 Gbit/s"},
    "MI300X": {"devices": "8 x MI300X", "links": "XGMI"},
    "8x PCIe": {"devices": "8 x RTX-3090", "links": {"PIX": TWO_SOCKETS, "SYS": "all"}},
    "8xPCIe_gddr": {"devices": "8 x RTX-4090", "links": {"PIX": TWO_SOCKETS, "SYS": "all"}},
    "abci": {"devices": "4 x V100-16GB-SXM", "links": "NV2"},
}
SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "GB": 10**9}
LARGE_BYTES = 1 << 34
"""Where a row gives no size: large enough for latency not to matter."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    result: dict[str, Any] = {}
    for name, rows in (
        ("all-reduce", list(all_reduces(arguments.data / "allreduce_busbw_measured.csv"))),
        *((path.stem, list(pairs(path))) for path in sorted(arguments.data.glob("p2p_*.csv"))),
    ):
        result[name] = {"rows": rows, **agreement(rows)}
        show(console, name, result[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def all_reduces(path: Path) -> Iterator[dict[str, Any]]:
    """Each measured all-reduce with its prediction, GB/s of bus bandwidth."""
    for row in read(path):
        num_nodes = int(row["nodes"])
        network = network_of(row["box"], num_nodes)
        per_node = int(row["gpus"]) // num_nodes
        devices = [DeviceId(f"box-{node}", index) for node in range(num_nodes) for index in range(per_node)]
        yield {
            "what": f"{row['box']}, {row['gpus']} GPUs, {row['algo']}, {row['payload']}",
            "measured": float(row["busbw_GBps"]),
            "predicted": bus_bandwidth(network, devices, num_bytes(row["payload"]), row["algo"]) / 1e9,
            "modelled": row["algo"] != "tree",
        }


def bus_bandwidth(network: Network, devices: list[DeviceId], size: float, algorithm: str) -> float:
    """Bus bandwidth of an all-reduce: 2 (n - 1) hops in a row, each with its latency, and the bytes.

    Sums in the switches count where the row does not say that it measured something else.
    """
    hops = list(zip(devices, [*devices[1:], devices[0]], strict=True))
    latency_s = sum(network.link(a, b).latency_s for a, b in hops) / len(hops)
    share = 2 * (len(devices) - 1) / len(devices)
    in_switches = algorithm in {"default", "NVLS"}
    rate = (network.all_reduce_bytes_per_s if in_switches else network.collective_bytes_per_s)(devices)
    seconds = 2 * (len(devices) - 1) * latency_s + size * share / rate
    return size * share / seconds


def pairs(path: Path) -> Iterator[dict[str, Any]]:
    """Each measured pair with its prediction, GB/s in both directions together."""
    network = network_of(path.stem, 1)
    measured = {(row["src"], other): float(row[other]) for row in read(path) for other in row if other != "src"}
    for a, b in combinations(range(math.isqrt(len(measured))), 2):
        yield {
            "what": f"{a} - {b}",
            "measured": (measured[f"d{a}", f"d{b}"] + measured[f"d{b}", f"d{a}"]) / 2,
            "predicted": 2 * network.link(DeviceId("box-0", a), DeviceId("box-0", b)).bytes_per_s / 1e9,
            "modelled": True,
        }


def network_of(box: str, num_nodes: int) -> Network:
    """The network of `num_nodes` boxes with a fabric that does not limit them."""
    machine = next(machine for name, machine in BOXES.items() if name in box)
    data = {"machines": {"box": machine}, "nodes": [{"machine": "box", "count": num_nodes}]}
    return Network(ClusterSpec.model_validate(data))


def agreement(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Rank correlation over all rows and without those of trees, which are not modelled; the median relative error."""
    errors = sorted(abs(row["predicted"] / row["measured"] - 1) for row in rows)
    return {
        "spearman": spearman(rows),
        "spearman_modelled": spearman([row for row in rows if row["modelled"]]),
        "median_error": errors[len(errors) // 2],
    }


def spearman(rows: list[dict[str, Any]]) -> float | None:
    """Rank correlation; None where all predictions are one."""
    predicted, measured = ([round(row[key], 6) for row in rows] for key in ("predicted", "measured"))
    return float(spearmanr(predicted, measured).statistic) if len(set(predicted)) > 1 else None


def num_bytes(payload: str) -> float:
    """`16GiB` in bytes."""
    match = re.fullmatch(r"(\d+)(\w+)", payload)
    return int(match[1]) * SIZES[match[2]] if match else LARGE_BYTES


def read(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with comments."""
    yield from csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#"))


def show(console: Console, name: str, result: dict[str, Any]) -> None:
    """One table."""
    rho, modelled = (
        "undefined: one prediction for all" if value is None else f"{value:.3f}"
        for value in (result["spearman"], result["spearman_modelled"])
    )
    caption = f"Spearman {rho}; without trees {modelled}; median error {result['median_error']:.1%}"
    table = Table("what", "measured GB/s", "predicted GB/s", "ratio", title=name, caption=caption)
    for row in result["rows"]:
        ratio = row["predicted"] / row["measured"]
        table.add_row(row["what"], f"{row['measured']:.1f}", f"{row['predicted']:.1f}", f"{ratio:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
