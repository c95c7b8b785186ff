"""What planning for mixed GPUs gains, by predicted step time.

    python benchmarks/plan_hetero.py [--json FILE]

Each mixed cluster against (i) even data parallelism: every GPU one replica with equal shares, the best micro-batch,
ZeRO and recomputation, by plain enumeration; (ii) the best plan on the GPUs of one kind alone and (iii) the best plan
whose stages all have the same replicas, both by the same search with that part pinned. A gain is the other's step time
over ours; `-` where the other does not fit.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.memory import replica_memory
from heliostat.placement.search.search import search
from heliostat.placement.stage_time import StageTimer
from heliostat.placement.step_time import predict_step
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

Pool = tuple[str, dict[str, Any], int, dict[str, str]]
"""Name, machine, how many of it, and their labels."""
INFINITE = float("inf")
A100: dict[str, Any] = {"devices": "8 x A100-40GB-SXM", "links": "NV12", "nics": "4 x 200 Gbit/s"}
V100: dict[str, Any] = {"devices": "8 x V100-16GB-SXM", "links": "NV2", "nics": "1 x 100 Gbit/s"}
H100: dict[str, Any] = {"devices": "8 x H100-80GB-SXM", "links": "NV18", "nics": "8 x 400 Gbit/s"}
RTX3090: dict[str, Any] = {"devices": "8 x RTX-3090", "links": "PHB", "nics": "1 x 100 Gbit/s"}
RTX2080: dict[str, Any] = {"devices": "8 x RTX-2080-Ti", "links": "PHB", "nics": "1 x 100 Gbit/s"}


class Case(NamedTuple):
    """A cluster and what to train on it."""

    name: str
    cluster: ClusterSpec
    workload: WorkloadProfile
    global_batch: int


def cases() -> Iterator[Case]:
    """The clusters."""
    opt = model("opt-350m", 1024, 24, 16)
    small, middle, large = (
        model("gpt-1.3b", 2048, 24, 32),
        model("gpt-6.7b", 4096, 32, 32),
        model("gpt-13b", 5120, 40, 40),
    )
    pools: list[Pool]
    for fast, slow in ((32, 96), (80, 240), (128, 384)):
        pools = [("a", A100, fast // 8, {}), ("v", V100, slow // 8, {})]
        yield Case(f"A100+V100 {fast}+{slow}, 350M", cluster(pools), opt, 2048)
        yield Case(f"A100+V100 {fast}+{slow}, 6.7B", cluster(pools), middle, 1024)
    yield Case("H100+A100 16+32, 13B", cluster([("h", H100, 2, {}), ("a", A100, 4, {})]), large, 512)
    yield Case("3090+2080Ti 16+16, 1.3B", cluster([("r", RTX3090, 2, {}), ("t", RTX2080, 2, {})]), small, 256)
    mixed = [{"type": kind, "count": count} for kind, count in (("A100-40GB-SXM", 2), ("V100-32GB-SXM", 2), ("T4", 1))]
    odd: dict[str, Any] = {"devices": mixed, "links": "PHB", "nics": "1 x 25 Gbit/s"}
    yield Case("one odd box 2+2+1, 1.3B", cluster([("o", odd, 1, {})]), small, 64)
    pools = [("a8", A100, 1, {}), ("a4", {**A100, "devices": "4 x A100-40GB-SXM"}, 2, {})]
    pools += [(f"v{size}", {**V100, "devices": f"{size} x V100-32GB-SXM"}, many, {}) for size, many in ((6, 2), (2, 3))]
    yield Case("unequal nodes 8+4+4+6+6+2+2+2, 6.7B", cluster(pools), middle, 256)
    zones: list[Pool] = [("a", A100, 2, {"zone": "east"}), ("v", V100, 4, {"zone": "west"})]
    yield Case("two zones, 10 Gbit/s between, 6.7B", cluster(zones, zone_gbit=10), middle, 512)
    same: list[Pool] = [
        ("a", A100, 2, {"zone": "east"}),
        ("b", A100, 1, {"zone": "west"}),
        ("v", V100, 2, {"zone": "west"}),
    ]
    yield Case("two zones, A100 in both, 6.7B", cluster(same, zone_gbit=10), middle, 512)


def model(name: str, hidden: int, layers: int, heads: int) -> WorkloadProfile:
    """A GPT."""
    return transformer(
        Transformer(name=name, hidden=hidden, layers=layers, heads=heads, seq_len=2048, vocabulary=50304)
    )


def cluster(pools: list[Pool], zone_gbit: float | None = None) -> ClusterSpec:
    """The cluster as a file would say it."""
    written: dict[str, Any] = {
        "origin": "file",
        "machines": {name: machine for name, machine, _, _ in pools},
        "nodes": [{"machine": name, "count": count, "labels": labels} for name, _, count, labels in pools],
    }
    if zone_gbit is not None:
        levels = [{"name": "zone", "gbit_per_s": 1600}, {"name": "core", "gbit_per_s": zone_gbit, "latency_us": 500}]
        written["fabric"] = {"levels": levels}
    return ClusterSpec.model_validate(written)


def even_s(case: Case) -> float:
    """The best step time of even data parallelism; infinite if it does not fit."""
    ground = Ground(case.cluster)
    shape = Shape(tuple(ground.num_devices), 1)
    hardware = ground.hardware([shape])
    limits = dict(zip(ground.kinds, ground.memory_bytes, strict=True))
    timer = StageTimer(ground.constants.shared)
    best = INFINITE
    for strategy in even_strategies(case, ground, shape.width):
        step = predict_step(case.workload, strategy, hardware, timer)
        uses = replica_memory(case.workload, strategy, step.in_flight)[0]
        pairs = zip(uses, strategy.stages[0].replicas, strict=True)
        if all(use.total <= limits[one.device_kind] for use, one in pairs):
            best = min(best, step.step_s)
    return best


def even_strategies(case: Case, ground: Ground, width: int) -> Iterator[Strategy]:
    """Every GPU a replica, with equal shares."""
    each, more = divmod(case.global_batch, width)
    kinds = [kind for kind, count in zip(ground.kinds, ground.num_devices, strict=True) for _ in range(count)]
    if not each:
        return
    for zero, recompute in product((0, 1, 2, 3), ("none", "selective", "full")):
        for micro in (1 << at for at in range((each + (more > 0)).bit_length())):
            replicas = tuple(
                ReplicaShare(device_kind=kind, num_samples=own, micro_batch=min(micro, own))
                for number, kind in enumerate(kinds)
                for own in (each + (number < more),)
            )
            stage = {"first_block": 0, "end_block": case.workload.num_blocks, "replicas": replicas}
            stages = (StageStrategy.model_validate({**stage, "zero": zero, "recompute": recompute}),)
            yield Strategy(global_batch=case.global_batch, stages=stages)


def best_of(case: Case, pins: Pins) -> tuple[float, Strategy | None]:
    """The predicted step time of the best plan under `pins`, and the plan; infinite if nothing fits."""
    try:
        best = search(case.workload, case.cluster, Constraints(global_batch=case.global_batch, pins=pins)).best
    except PlanError:
        return INFINITE, None
    return best.prediction.step_time_s, best.strategy


def compare(case: Case) -> dict[str, Any]:
    """One row."""
    started = time.process_time()
    ours_s, strategy = best_of(case, Pins())
    searched_s = time.process_time() - started
    assert strategy is not None, "nothing fits"
    others = {
        "even": even_s(case),
        "one_kind": min(best_of(case, Pins(kinds=(kind,)))[0] for kind in case.cluster.count_by_kind()),
        "equal_widths": best_of(case, Pins(equal_widths=True))[0],
    }
    gains = {name: seconds / ours_s if seconds < INFINITE else None for name, seconds in others.items()}
    plan = " ".join(
        f"{stage.end_block - stage.first_block}:{words(stage)}x{stage.tensor_parallel}" for stage in strategy.stages
    )
    return {
        "case": case.name, "step_s": ours_s, **gains, "search_s": searched_s, "schedule": strategy.schedule,
        "plan": plan, "strategy": strategy.model_dump(mode="json"),
    }  # fmt: skip


def words(stage: StageStrategy) -> str:
    """How many replicas of which kinds."""
    counts = Counter(replica.device_kind.split("-")[0] for replica in stage.replicas)
    return "+".join(f"{count}{kind}" for kind, count in counts.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'cluster and model':40} {'step s':>8} {'(i) even':>8} {'(ii) one kind':>13} {'(iii) equal':>11} "
          f"{'cpu s':>6}  blocks:replicas x tensor parallel")  # fmt: skip
    rows = []
    for case in cases():
        row = compare(case)
        rows.append(row)
        even, alone, equal = (
            "-" if row[name] is None else f"{row[name]:.3f}" for name in ("even", "one_kind", "equal_widths")
        )
        print(f"{case.name:40} {row['step_s']:8.4f} {even:>8} {alone:>13} {equal:>11} {row['search_s']:6.2f}  "
              f"{row['schedule']} {row['plan'][:70]}", flush=True)  # fmt: skip
    gains = [row[name] for row in rows for name in ("even", "one_kind", "equal_widths") if row[name] is not None]
    print(f"\nleast gain {min(gains):.4f}, largest {max(gains):.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
