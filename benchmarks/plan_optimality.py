"""The search against exhaustive enumeration, on random small instances.

    python benchmarks/plan_optimality.py [--instances 300] [--seed 0] [--blind N] [--json FILE]

`plan_enumeration` says what is enumerated and how. It is told the step time of the plan that was found, once `predict`
has confirmed it, and looks for anything better; the first N instances (24) it searches blind. The search may also use
rounds that are not powers of two, and be better than the enumeration for it.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from plan_enumeration import Enumeration, describe  # type: ignore[import-not-found]  # beside this file

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints
from heliostat.placement.prediction import predict
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.search.search import search
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

KINDS = ("A100-40GB-SXM", "V100-16GB-SXM", "V100-32GB-SXM", "H100-80GB-SXM", "T4", "RTX-3090", "RTX-2080-Ti")


class Instance(NamedTuple):
    """One question."""

    workload: WorkloadProfile
    cluster: ClusterSpec
    global_batch: int


def instances(number: int, seed: int) -> Iterator[Instance]:
    """Random small instances."""
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    for place in range(number):
        layers = draw.randint(1, 6)
        shape = Transformer(
            name=f"model-{place}", hidden=draw.choice([512, 1024, 2048, 4096, 8192, 12288]), layers=layers, heads=8,
            seq_len=draw.choice([256, 512, 1024, 2048]), vocabulary=draw.choice([8192, 50304]),
            gated=draw.random() < 0.3, tied=draw.random() < 0.5,
        )  # fmt: skip
        yield Instance(transformer(shape), random_cluster(draw), draw.choice([4, 8, 8, 16]))


def random_cluster(draw: random.Random) -> ClusterSpec:
    """Up to 8 devices of up to 3 kinds on up to 3 nodes."""
    num_kinds = draw.choice([1, 2, 2, 3])
    kinds = draw.sample(KINDS, num_kinds)
    total = draw.choice([2, 3, 4, 4, 5, 6, 8])
    nodes: list[Node] = []
    left = max(total, num_kinds)
    for place, kind in enumerate(kinds):
        rest = num_kinds - place - 1
        count = left - rest if not rest else draw.randint(1, left - rest)
        left -= count
        parts = [count] if count == 1 or draw.random() < 0.7 else [count // 2, count - count // 2]
        for part in parts:
            gbit, rate = draw.choice([10, 25, 100]), draw.choice([10e9, 25e9, 100e9])
            nodes.append(Node(node_id=f"{kind}-{len(nodes)}", machine=machine(kind, part, gbit, rate)))
    return ClusterSpec(nodes=tuple(nodes), origin="file")


def machine(kind: str, count: int, gbit: float, bytes_per_s: float) -> Machine:
    """`count` devices, all joined, one NIC."""
    link = LinkClass(kind=LinkKind.NVLINK, num_links=1)
    return Machine(
        name=f"{count} x {kind}",
        devices=tuple(
            Device(type=kind, index=index, memory_bytes=builtin().find(kind).memory_bytes or 1)
            for index in range(count)
        ),
        topology=NodeTopology(
            source="benchmark",
            devices=tuple(TopologyDevice(name=f"GPU{index}", index=index) for index in range(count)),
            nics=(Nic(name="nic", label="nic", bits_per_s=int(gbit * 1e9)),),
            links=tuple(Connection(a=f"GPU{a}", b=f"GPU{b}", link=link) for a, b in combinations(range(count), 2)),
        ),
        figures={"NV1": Link(latency_s=4e-6, bytes_per_s=bytes_per_s)},
    )


INFINITE = float("inf")


def compare(number: int, instance: Instance, *, blind: bool) -> dict[str, Any]:
    """The search's best and the enumeration's."""
    started = time.process_time()
    try:
        outcome = search(instance.workload, instance.cluster, Constraints(global_batch=instance.global_batch))
    except PlanError:
        outcome = None
    searched = time.process_time()
    found_s, words = confirmed(instance, outcome) if outcome else (INFINITE, "nothing fits")
    truth = Enumeration(
        instance.workload, instance.cluster, instance.global_batch, best_s=INFINITE if blind else found_s
    )
    truth.run()
    feasible = found_s < INFINITE, truth.best_s < INFINITE
    return {
        "instance": number,
        "devices": instance.cluster.num_devices,
        "kinds": len(instance.cluster.count_by_kind()),
        "blocks": instance.workload.num_blocks,
        "blind": blind,
        "search_s": searched - started,
        "exhaustive_s": time.process_time() - searched,
        "plans": truth.num_plans,
        "feasible": feasible,
        "regret": found_s / truth.best_s - 1 if all(feasible) else 0.0,
        "found": words,
        "best": truth.best,
    }


def confirmed(instance: Instance, outcome: Outcome) -> tuple[float, str]:
    """Step time of the best plan and the plan in words; `predict` must agree, and it must fit."""
    found = outcome.best.strategy
    prediction = predict(instance.workload, instance.cluster, found)
    assert abs(prediction.step_time_s / outcome.best.prediction.step_time_s - 1) < 1e-9, "predict says otherwise"
    limits = {device.kind: device.memory_bytes for node in instance.cluster.nodes for device in node.devices}
    kinds = [
        one.device_kind for stage in found.stages for one in stage.replicas for _ in range(stage.ranks_per_replica)
    ]
    assert all(used <= limits[kind] for used, kind in zip(prediction.memory_bytes, kinds, strict=True)), "does not fit"
    words = ", ".join(map(describe, found.stages))
    return prediction.step_time_s, f"{found.schedule} x{found.chunks} M{found.num_micro_batches} {words}"


def show(row: dict[str, Any]) -> None:
    """One line, and both plans where they differ much."""
    print(
        f"{row['instance']:5} {row['devices']:7} {row['kinds']:5} {row['blocks']:6} {row['search_s']:8.2f} "
        f"{row['exhaustive_s']:12.2f} {row['plans']:9} {row['regret']:9.4%}{'  blind' if row['blind'] else ''}",
        flush=True,
    )
    if row["regret"] > 0.001 or row["feasible"][0] != row["feasible"][1]:
        print(f"      found {row['found']}\n      best  {row['best']}", flush=True)


def summary(rows: list[dict[str, Any]]) -> str:
    """How good the search is over all instances."""
    regrets = [row["regret"] for row in rows]
    feasible = sum(all(row["feasible"]) for row in rows)
    differs = sum(row["feasible"][0] != row["feasible"][1] for row in rows)
    optimal, near = (sum(one <= limit for one in regrets) / len(rows) for limit in (1e-9, 0.01))
    better = sum(one < -1e-6 for one in regrets)
    search_s, exhaustive_s = (sum(row[name] for row in rows) for name in ("search_s", "exhaustive_s"))
    return (
        f"instances {len(rows)}, feasible {feasible}, feasibility differs {differs}\n"
        f"optimal {optimal:.2%}, within 1 % {near:.2%}, worst {max(regrets):.3%}; better than enumerated: {better}\n"
        f"processor seconds: search {search_s:.0f}, enumeration {exhaustive_s:.0f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", type=int, default=24, help="instances whose enumeration is told nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'inst.':>5} {'devices':>7} {'kinds':>5} {'blocks':>6} {'search s':>8} {'exhaustive s':>12} {'plans':>9} "
          f"{'regret':>9}")  # fmt: skip
    rows = []
    for number, instance in enumerate(instances(options.instances, options.seed)):
        rows.append(compare(number, instance, blind=number < options.blind))
        show(rows[-1])
    print(summary(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
