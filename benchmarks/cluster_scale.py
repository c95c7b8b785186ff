"""A cluster file of 10,000 GPUs: seconds and memory to load it and to answer bandwidth queries.

    python benchmarks/cluster_scale.py [--nodes 1250] [--queries 100000] [--json FILE]

The file is written by hand (one pool) and in full (every node with its id, as a discovery saves it). Each is measured
in a process of its own, imports included.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

BY_HAND = """\
machines:
  h100: {{devices: 8 x H100-80GB-SXM, links: NV18, nics: 8 x 400 Gbit/s}}
nodes: [{{machine: h100, count: {num_nodes}}}]
fabric:
  levels:
    - {{name: leaf, nodes: 16, gbit_per_s: 3200, latency_us: 5}}
    - {{name: pod, nodes: 256, gbit_per_s: 1600, latency_us: 8}}
    - {{name: core, gbit_per_s: 800, latency_us: 12}}
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1250)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.queries)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [in_a_process(path, arguments.queries) for path in write_files(Path(folder), arguments.nodes)]
    table = Table("file", "bytes", "GPUs", "import s", "load s", f"{arguments.queries} queries s", "all s", "peak MiB")
    for row in rows:
        figures = (f"{row[key]:.2f}" for key in ("import_s", "load_s", "queries_s", "total_s"))
        table.add_row(row["file"], str(row["bytes"]), str(row["num_devices"]), *figures, f"{row['peak_mib']:.0f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def write_files(folder: Path, num_nodes: int) -> list[Path]:
    """The three files."""
    from heliostat.cluster.spec_file import load, save

    paths = [folder / name for name in ("by_hand.yaml", "full.json", "full.yaml")]
    paths[0].write_text(BY_HAND.format(num_nodes=num_nodes))
    for path in paths[1:]:
        save(load(paths[0]), path)
    return paths


def in_a_process(path: Path, num_queries: int) -> dict:  # type: ignore[type-arg]
    """The figures of `measure` from a fresh interpreter."""
    command = [sys.executable, __file__, "--one", str(path), "--queries", str(num_queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # this very file
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(path: Path, num_queries: int) -> dict[str, object]:
    """Load `path`, ask for `num_queries` random pairs."""
    started = time.perf_counter()
    from heliostat.cluster.network import Network
    from heliostat.cluster.spec_file import load

    imported = time.perf_counter()
    cluster = load(path)
    network = Network(cluster)
    loaded = time.perf_counter()
    devices = cluster.device_ids
    draw = random.Random(0).randrange  # noqa: S311  # not for secrets
    pairs = [(draw(len(devices)), draw(len(devices))) for _ in range(num_queries)]
    slowest = float("inf")
    drawn = time.perf_counter()
    for a, b in pairs:
        if a != b:
            slowest = min(slowest, network.link(devices[a], devices[b]).bytes_per_s)
    ended = time.perf_counter()
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "num_devices": cluster.num_devices,
        "slowest_bytes_per_s": slowest,
        "import_s": imported - started,
        "load_s": loaded - imported,
        "queries_s": ended - drawn,
        "total_s": ended - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
