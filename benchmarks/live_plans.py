"""Predicted against measured step time of plans that are run for real, on emulated mixes of devices.

    python benchmarks/live_plans.py [--json FILE] [--plans 30] [--steps 12]

Gloo ranks of one thread each on this machine; a rank that stands for a device k times as slow rests after every pass
(heliostat.train.slowdown). On every mix the devices are measured as a run measures them: steps and blocks of the model
on all ranks at once, and collectives among them. The planner then ranks plans, and those are run by the executor.

What is printed, for every mix: predicted and measured milliseconds of each plan; the mean absolute error and Spearman's
rank correlation; how much longer the planner's first choice takes than the best that was measured; and how much of the
ideal gain over an even split of the batch it reaches. Ideal is the split of the batch that the measured speeds allow,
without communication: (even / planned - 1) / (even / ideal - 1).

The JSON file has {"mixes": [{"factors", "plans": [{"strategy", "predicted_s", "measured_s"}], "mape", "spearman",
"regret", "ideal_gain", "gain"}], "mape", "spearman", "num_plans"}.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from gpt import NextToken  # type: ignore[import-not-found]  # beside this file
from scipy.stats import spearmanr

from heliostat.cluster.emulated_node import VARIABLE, EmulatedNode
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import Curve, DeviceRates, GroupShape, Measured
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.placement import enumerate_plans
from heliostat.placement.constraints import Constraints
from heliostat.placement.prediction import predict
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.placement.view.words import strategy_in_words
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer
from heliostat.train.apply.engine import CPU, Engine
from heliostat.train.calibrate import classify, micro_batch_sizes
from heliostat.train.collectives import measure_curves, operations
from heliostat.train.device_rates import measure_rates, median_rates, slowed
from heliostat.train.effort import QUICK
from heliostat.train.execution import RUNNABLE, execution_of
from heliostat.train.profile import profile_module
from heliostat.train.slowdown import factor_here
from heliostat.train.step_timing import StepTiming, with_timings
from heliostat.train.timing import measure_step

MIXES = ((1.0, 2.0), (1.0, 3.0), (3.0, 3.0, 6.0, 6.0))
"""How many times as slow each device is. Four ranks on two cores must all rest, or they would wait for a core."""
GLOBAL_BATCH = 72
SHAPE = Transformer(name="GPT", hidden=128, layers=6, heads=4, seq_len=64, vocabulary=512, tied=False)
LINKS = QUICK.model_copy(
    update={"message_bytes": tuple(1 << shift for shift in (12, 15, 18, 20, 22)), "min_rounds": 5, "collectives_s": 3.0}
)
WARM_UP = 3


class Mix:
    """Ranks that stand for devices, and a process for each."""

    def __init__(self, factors: Sequence[float], directory: Path) -> None:
        self.factors, self._directory = factors, directory
        context = get_context("forkserver")
        context.set_forkserver_preload(["heliostat.train.apply.engine"])
        self._pools = [ProcessPoolExecutor(1, context) for _ in factors]

    def on(
        self, work: Callable[..., Any], *args: Any, num_ranks: int | None = None, ranks: Sequence[int] = ()
    ) -> list[Any]:
        """`work(meeting, rank, ...)` on the devices at once; what each gives."""
        chosen = list(ranks) or list(range(num_ranks or len(self.factors)))
        meeting = (self._directory / f"meeting-{os.urandom(4).hex()}").as_uri()
        futures = [
            self._pools[device].submit(_ranked, self._node(device), meeting, rank, len(chosen), work, args)
            for rank, device in enumerate(chosen)
        ]
        return [future.result(timeout=300) for future in futures]

    def apart(self, work: Callable[..., Any], *args: Any) -> list[Any]:
        """`work(...)` on all devices at once, none of them knowing of the others."""
        futures = [
            pool.submit(_ranked, self._node(device), "", 0, 1, work, args) for device, pool in enumerate(self._pools)
        ]
        return [future.result(timeout=300) for future in futures]

    def _node(self, device: int) -> str:
        path = self._directory / f"node-{device}.json"
        machine = Machine(name="m", devices=(Device(type="cpu", index=0, memory_bytes=1 << 33),))
        node = EmulatedNode(node_id=str(device), machine=machine, slowdowns=(self.factors[device],))
        path.write_text(node.model_dump_json())
        return str(path)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown()


def _ranked(node: str, meeting: str, rank: int, size: int, work: Callable[..., Any], args: Sequence[Any]) -> Any:
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's own use of older names
    os.environ[VARIABLE] = node
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if size == 1:
        return work(*args)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        return work(*args)
    finally:
        dist.destroy_process_group()


def alone(sizes: list[int]) -> tuple[StepTiming, DeviceRates]:
    """What a device does by itself; all of them at once, each in a run of its own."""
    task = NextToken(SHAPE)
    timing = measure_step(task, task.rows(256), micro_batches=sizes)
    return timing, slowed(measure_rates(CPU, QUICK), factor_here())


def links(num_ranks: int) -> tuple[Curve, ...]:
    """What collectives among this many ranks take."""
    shape = GroupShape(num_ranks=num_ranks, num_nodes=1, device_type="cpu", link="host")
    return measure_curves(operations(num_ranks), shape, device=CPU, effort=LINKS)


def run(strategy: Strategy, order: Sequence[int], num_steps: int) -> float:
    """Median seconds of a step, the slowest rank's."""
    task = NextToken(SHAPE)
    rows = task.rows(256)
    engine = Engine(task, strategy, example=rows, order=order)
    times = []
    for number in range(WARM_UP + num_steps):
        indices = torch.arange(number * GLOBAL_BATCH, (number + 1) * GLOBAL_BATCH) % 256
        if dist.is_initialized():
            dist.barrier()
        started = time.perf_counter()
        engine.step(rows, indices, number=number, learning_rate=1e-4)
        times.append(time.perf_counter() - started)
    own = torch.tensor(times[WARM_UP:])
    if dist.is_initialized():
        dist.all_reduce(own, op=dist.ReduceOp.MAX)
    return float(own.median())


def measured_on(mix: Mix) -> tuple[ClusterSpec, WorkloadProfile, list[StepTiming]]:
    """The cluster and the workload, with what was measured."""
    sizes = micro_batch_sizes(GLOBAL_BATCH, len(mix.factors))
    timings, rates = zip(*mix.apart(alone, sizes), strict=True)
    devices = [Device(type="cpu", index=index, memory_bytes=1 << 33) for index in range(len(mix.factors))]
    cluster = ClusterSpec(nodes=(Node.of("machine", devices),), origin="emulated")
    cluster, by_kind = classify(cluster, timings, num_samples=sizes[-1])
    curves = [curve for size in range(2, len(mix.factors) + 1) for curve in mix.on(links, size, num_ranks=size)[0]]
    kinds = [device.kind for device in cluster.nodes[0].devices]
    by_rate = {
        kind: median_rates([own for other, own in zip(kinds, rates, strict=True) if other == kind]) for kind in kinds
    }
    known = Measured(date="now", emulated=True, rates=by_rate, curves=tuple(curves))
    task = NextToken(SHAPE)
    with torch.device("meta"):
        model = task.model()
    workload = profile_module(model, task.rows(4), lambda one, batch: task.loss(one, batch)[0], seq_len=SHAPE.seq_len)
    return cluster.model_copy(update={"measured": known}), with_timings(workload, by_kind, None), list(timings)


def order_on(strategy: Strategy, cluster: ClusterSpec) -> list[int]:
    """The device of every rank of the plan: the first free one of its kind."""
    free = {index: device.kind for index, device in enumerate(cluster.nodes[0].devices)}
    found = []
    for stage in strategy.stages:
        for kind in (share.device_kind for share in stage.replicas for _ in range(stage.ranks_per_replica)):
            device = next(index for index, own in free.items() if own == kind)
            del free[device]
            found.append(device)
    return found


def candidates(workload: WorkloadProfile, cluster: ClusterSpec, many: int) -> Iterator[Strategy]:
    """The best plans, and the best of every schedule, degree and ZeRO stage, each with the device counts it likes."""
    wanted = Constraints(global_batch=GLOBAL_BATCH, execution=execution_of(), pins=RUNNABLE)
    pins: list[dict[str, Any]] = [
        {},
        *({"num_stages": number} for number in range(1, cluster.num_devices + 1)),
        *({"schedule": one} for one in ("gpipe", "1f1b", "zero-bubble", "interleaved")),
        *({"zero": one} for one in (1, 2, 3)),
        *({"recompute": "full", "num_stages": number} for number in (1, 2)),
        {"tensor_parallel": 2},
        {"micro_batch": 6},
    ]
    for pin in pins:
        asked = wanted.model_copy(update={"pins": RUNNABLE.model_copy(update=pin)})
        try:
            yield from (one.strategy for one in islice(enumerate_plans(workload, cluster, asked, many), many))
        except Exception as error:  # noqa: BLE001 a pin that nothing fits
            print(f"  {pin}: {str(error).splitlines()[0]}")


def chosen(workload: WorkloadProfile, cluster: ClusterSpec, many: int) -> list[Strategy]:
    """Distinct plans, the planner's first choice first."""
    found: dict[str, Strategy] = {}
    for strategy in candidates(workload, cluster, max(2, many // 8)):
        found.setdefault(strategy.model_dump_json(), strategy)
    return list(found.values())[:many]


def even_split(cluster: ClusterSpec) -> Strategy:
    """What DistributedDataParallel does."""
    kinds = [device.kind for device in cluster.nodes[0].devices]
    each = GLOBAL_BATCH // len(kinds)
    shares = tuple(ReplicaShare(device_kind=kind, num_samples=each, micro_batch=each) for kind in kinds)
    return Strategy(global_batch=GLOBAL_BATCH, stages=(StageStrategy(first_block=0, end_block=8, replicas=shares),))


def ideal_s(timings: Sequence[StepTiming]) -> float:
    """The step that the measured speeds allow: every device busy until all samples are done."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        done = sum(max(0.0, (middle - one.optimizer_s - one.micro_batch_s) / one.sample_s) for one in timings)
        low, high = (low, middle) if done >= GLOBAL_BATCH else (middle, high)
    return high


def measure(factors: Sequence[float], many: int, num_steps: int) -> dict[str, Any]:
    """One mix."""
    with TemporaryDirectory() as directory:
        mix = Mix(factors, Path(directory))
        try:
            cluster, workload, timings = measured_on(mix)
            plans = []
            for strategy in chosen(workload, cluster, many):
                predicted_s = predict(workload, cluster, strategy).step_time_s
                order = order_on(strategy, cluster)
                roles = [order.index(device) for device in sorted(order)]
                measured_s = mix.on(run, strategy, roles, num_steps, ranks=sorted(order))[0]
                plans.append(
                    {"strategy": strategy.model_dump(mode="json"), "predicted_s": predicted_s, "measured_s": measured_s}
                )
                print(
                    f"  {predicted_s * 1e3:8.1f} {measured_s * 1e3:8.1f} {predicted_s / measured_s - 1:+7.1%}  "
                    f"{strategy_in_words(workload, strategy)}",
                    flush=True,
                )
            even_s = mix.on(run, even_split(cluster), list(range(len(factors))), num_steps)[0]
        finally:
            mix.close()
    even = max(one.compute_s(num_micro_batches=1, num_samples=GLOBAL_BATCH // len(factors)) for one in timings)
    best, first = min(one["measured_s"] for one in plans), plans[0]["measured_s"]
    ideal_gain, gain = even / ideal_s(timings) - 1, even_s / first - 1
    return {
        "factors": list(factors),
        "plans": plans,
        **fidelity(plans),
        "regret": first / best - 1,
        "even_s": even_s,
        "ideal_gain": ideal_gain,
        "gain": gain,
        "gain_share": gain / ideal_gain,
    }


def fidelity(plans: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How well plans were predicted."""
    predicted, measured = ([one[key] for one in plans] for key in ("predicted_s", "measured_s"))
    return {
        "mape": mean(abs(one / other - 1) for one, other in zip(predicted, measured, strict=True)),
        "spearman": float(spearmanr(predicted, measured).statistic),
    }


def main() -> None:
    """Measure all mixes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=24)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    mixes = []
    for factors in MIXES:
        print(f"devices {' : '.join(f'{one:g}' for one in factors)} as slow; predicted and measured ms")
        mixes.append(measure(factors, options.plans, options.steps))
        found = mixes[-1]
        print(
            f"  MAPE {found['mape']:.1%}, Spearman {found['spearman']:.3f}, regret {found['regret']:.1%}; over an even "
            f"split +{found['gain']:.0%} of an ideal +{found['ideal_gain']:.0%}: {found['gain_share']:.0%}\n"
        )
    plans = [one for mix in mixes for one in mix["plans"]]
    report = {"mixes": mixes, "num_plans": len(plans), **fidelity(plans)}
    print(f"{len(plans)} plans: MAPE {report['mape']:.1%}, median {median_error(plans):.1%}, ", end="")
    print(f"Spearman {report['spearman']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def median_error(plans: Sequence[dict[str, Any]]) -> float:
    """The median of the absolute errors."""
    errors: list[float] = [abs(one["predicted_s"] / one["measured_s"] - 1) for one in plans]
    return median(errors)


if __name__ == "__main__":
    main()
