"""Seconds and memory that a search takes, by the number of GPUs and of their types.

    python benchmarks/plan_scale.py [--most 10000] [--json FILE]

Nodes of 8 GPUs in zones of 16; each row in a process of its own on one core. Seconds of the search alone, on the clock
and of the processor; the process's peak memory, imports included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KINDS = ("H100-80GB-SXM", "A100-40GB-SXM", "V100-32GB-SXM", "A10G")
LINKS = ("NV18", "NV12", "NV6", "NODE")
ROWS = ((8, 1), (8, 2), (16, 2), (64, 1), (64, 2), (64, 4), (256, 2), (512, 1), (512, 2), (512, 4), (1024, 1),
        (1024, 4), (4096, 4), (10_000, 1), (10_000, 4))  # fmt: skip
"""GPUs and types."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000, help="GPUs of the largest row")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    print(f"{'GPUs':>6} {'types':>5} {'model':>10} {'batch':>6} {'cluster s':>9} {'search s':>9} {'cpu s':>7} "
          f"{'peak MiB':>8} {'plans':>6} {'step s':>8}  plan")  # fmt: skip
    rows = []
    for num_devices, num_kinds in ROWS:
        if num_devices <= options.most:
            rows.append(in_a_process(num_devices, num_kinds))
            row = rows[-1]
            print(f"{num_devices:6} {num_kinds:5} {row['model']:>10} {row['batch']:6} {row['cluster_s']:9.2f} "
                  f"{row['search_s']:9.2f} {row['cpu_s']:7.2f} {row['peak_mib']:8.0f} {row['plans']:6} "
                  f"{row['step_s']:8.3f}  {row['plan']}", flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def in_a_process(num_devices: int, num_kinds: int) -> dict[str, Any]:
    """The figures of `measure` from a fresh interpreter with one thread."""
    command = [sys.executable, __file__, "--one", str(num_devices), str(num_kinds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603  # this very file
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(num_devices: int, num_kinds: int) -> dict[str, Any]:
    """Search once."""
    from heliostat.cluster.spec import ClusterSpec
    from heliostat.placement.constraints import Constraints
    from heliostat.placement.search.search import search
    from heliostat.placement.workloads import Transformer, transformer

    begun = time.perf_counter()
    cluster = ClusterSpec.model_validate(written(num_devices, num_kinds))
    hidden, layers, heads, batch = size_for(num_devices)
    name = f"gpt-{12 * hidden * hidden * layers / 1e9:.0f}b"
    workload = transformer(
        Transformer(name=name, hidden=hidden, layers=layers, heads=heads, seq_len=2048, vocabulary=50304)
    )
    started, cpu = time.perf_counter(), time.process_time()
    found = search(workload, cluster, Constraints(global_batch=batch))
    best = found.best.strategy
    stages = " ".join(
        f"{stage.end_block - stage.first_block}x{len(stage.replicas)}x{stage.tensor_parallel}" for stage in best.stages
    )
    return {
        "gpus": num_devices,
        "types": num_kinds,
        "model": name,
        "batch": batch,
        "cluster_s": started - begun,
        "search_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "plans": found.num_candidates,
        "step_s": found.best.prediction.step_time_s,
        "plan": f"{best.schedule} x{best.chunks} M{best.num_micro_batches}: {stages[:60]}",
    }


def size_for(num_devices: int) -> tuple[int, int, int, int]:
    """Hidden size, layers, heads and global batch of a model fit for so many GPUs."""
    if num_devices <= 16:
        return 2048, 24, 16, 64
    if num_devices <= 128:
        return 5120, 40, 40, 256
    if num_devices <= 1024:
        return 8192, 64, 64, 1024
    return 12288, 96, 96, 4096


def written(num_devices: int, num_kinds: int) -> dict[str, Any]:
    """The cluster as a file would say it."""
    kinds = list(zip(KINDS, LINKS, strict=True))[:num_kinds]
    machines, nodes = {}, []
    for place, (kind, link) in enumerate(kinds):
        count = num_devices // num_kinds + (place < num_devices % num_kinds)
        rows = [(8, count // 8), (count % 8, 1)]
        for size, many in rows:
            if size and many:
                name = f"m{place}-{size}"
                machines[name] = {
                    "devices": f"{size} x {kind}", "links": link, "nics": f"{max(1, size // 2)} x 200 Gbit/s"
                }  # fmt: skip
                nodes.append({"machine": name, "count": many})
    levels = [{"name": "zone", "nodes": 16, "gbit_per_s": 800}, {"name": "core", "gbit_per_s": 400}]
    return {"origin": "file", "machines": machines, "nodes": nodes, "fabric": {"levels": levels}}


if __name__ == "__main__":
    main()
