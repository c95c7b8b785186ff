"""One GPU: predicted against measured step time and peak memory, and our step against a plain compiled loop.

    python benchmarks/gpu_single.py --json gpu_single.json                   # all cases, on one H100 or H200
    python benchmarks/gpu_single.py --json gpu_single.json --only bf16       # some of them; those in the file are kept
    python benchmarks/gpu_single.py --device cpu --shapes tiny --eager       # that it works, without a GPU

A case is a GPT shape, a precision (bf16: products in 16 bits, parameters and AdamW in 32; tf32: 32 bits with tf32
products) and a recomputation (none, full; selective drops nothing where attention is fused). Ours is the executor with
compiled layers; the peer is the plainest loop: `torch.compile` of the whole model, autocast for bf16, activation
checkpoints of its layers for full, fused AdamW, no loss read back. With `--eager` neither is compiled. Both make the
same steps on the same rows; their first losses must agree. They take turns, and the ratio is the median over the rounds
of ours over theirs.

Predicted is `heliostat.placement.predict` with the device's entry in the catalogue, without anything measured on it;
on a CPU, which has no entry, its rates are measured first. Peak memory is that of our steps alone, as the allocator
reserved it, against what is predicted without the CUDA context, which lies outside of the allocator.

The JSON file is written after every case. A case that is in it is not run again; a file of another
device, torch or format is refused. Times are seconds, sizes bytes:

    {"format": 1, "device": "NVIDIA H100 80GB HBM3", "kind": "H100-80GB-SXM", "torch": "2.13.0+cu130",
     "compiled": true, "cases": [
      {"name": "768x12 bf16 none", "shape": {Transformer fields}, "precision": "bf16", "recompute": "none",
       "num_samples": 16, "step_s": ..., "predicted_step_s": ..., "low_s": ..., "high_s": ...,
       "tokens_per_s": ..., "allocated_bytes": ..., "reserved_bytes": ..., "predicted_bytes": ..., "peer_step_s": ...,
       "ratio": ..., "ratio_quartiles": [..., ...]}, ...]}

`low_s` and `high_s` bound four steps of five by the prediction; sizes are null on a CPU. A case that does not fit has
`"error"` instead of what was measured. Needs torch and what `heliostat.train.apply.engine` imports; no Ray, no MLflow.
"""

import argparse
import gc
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any, Literal

import torch
from gpt import GPT, NextToken, summed_loss  # type: ignore[import-not-found]  # beside this file
from torch.utils.checkpoint import checkpoint

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import Measured
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.placement.prediction import predict
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.device_rates import measure_rates
from heliostat.train.effort import QUICK
from heliostat.train.execution import execution_of
from heliostat.train.turns import Clock
from heliostat.values import Frozen

FORMAT = 1
TARGET = 1.02
RATE = 1e-4
SAME_LOSS = {"bf16": 1e-2, "tf32": 1e-3}
"""Relative; whole models and single layers are compiled to different sums."""


class Case(Frozen):
    """What is run."""

    shape: Transformer
    precision: Literal["bf16", "tf32"]
    recompute: Literal["none", "full"]
    num_samples: int
    compiled: bool

    @property
    def name(self) -> str:
        """Short, and different from all others."""
        shape = self.shape
        return f"{shape.hidden}x{shape.layers} T={shape.seq_len} B={self.num_samples} {self.precision} {self.recompute}"


def gpt(hidden: int, layers: int, seq_len: int, vocabulary: int = 50304, width: int = 64) -> Transformer:
    """With biases that the products add."""
    return Transformer(
        name=f"GPT {hidden}x{layers}", hidden=hidden, layers=layers, heads=hidden // width, seq_len=seq_len,
        vocabulary=vocabulary, tied=False, bias="fused",
    )  # fmt: skip


SHAPES = {
    "tiny": ((gpt(64, 2, 32, 128, 16), 2), (gpt(32, 3, 16, 64, 16), 4)),
    "full": (
        (gpt(768, 12, 1024), 16), (gpt(768, 12, 4096), 4), (gpt(1024, 24, 1024), 8), (gpt(1280, 36, 1024), 4),
        (gpt(1600, 48, 1024), 2), (gpt(2048, 16, 2048, width=128), 4), (gpt(2048, 24, 1024, width=128), 8),
        (gpt(2560, 16, 2048, width=80), 2), (gpt(4096, 6, 2048, width=128), 2),
    ),
}  # fmt: skip
"""Shapes, and samples per step: GPT-2 in its four sizes, and wider ones. Both models fit into 80 GB together."""


def main() -> None:
    """Run the cases, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", choices=tuple(SHAPES), default="full")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    cluster = cluster_of(device)
    report = begun(device, cluster, options.json, compiled=not options.eager)
    done = {one["name"] for one in report["cases"]}
    print(HEADINGS)
    for case in cases(SHAPES[options.shapes], compiled=not options.eager):
        if options.only in case.name and case.name not in done:
            report["cases"].append(run(case, device, cluster, options.rounds))
            print(line_of(report["cases"][-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(summary_of(report["cases"]))


def cases(shapes: tuple[tuple[Transformer, int], ...], *, compiled: bool) -> Iterator[Case]:
    """Every shape in both precisions, with and without recomputation."""
    for (shape, samples), precision, recompute in product(shapes, ("bf16", "tf32"), ("none", "full")):
        yield Case.model_validate(
            {"shape": shape, "precision": precision, "recompute": recompute, "num_samples": samples,
             "compiled": compiled}
        )  # fmt: skip


def cluster_of(device: torch.device) -> ClusterSpec:
    """One node with this device alone."""
    on_gpu = device.type == "cuda"
    known = builtin().find(torch.cuda.get_device_name(device) if on_gpu else "cpu")
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else 1 << 34
    machine = Machine(name="here", devices=(Device(type=known.name, index=0, memory_bytes=memory),))
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    rates = {} if on_gpu else {known.name: measure_rates(device, QUICK)}
    measured = Measured(date=now, emulated=False, rates=rates) if rates else None
    return ClusterSpec(nodes=(Node(node_id="here", machine=machine),), origin="live", measured=measured)


def begun(device: torch.device, cluster: ClusterSpec, path: Path | None, *, compiled: bool) -> dict[str, Any]:
    """The report so far: that of the file, if it is of this device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    head = {"format": FORMAT, "device": name, "kind": _kind(cluster), "torch": torch.__version__, "compiled": compiled}
    if path is None or not path.exists():
        return {**head, "cases": []}
    report: dict[str, Any] = json.loads(path.read_text())
    other = {key: report.get(key) for key in head}
    if other != head:
        raise SystemExit(f"{path} holds results of {other}, this is {head}: name another file")
    return report


def run(case: Case, device: torch.device, cluster: ClusterSpec, num_rounds: int) -> dict[str, Any]:
    """One row of the report."""
    row = {"name": case.name, **case.model_dump(), **predicted(case, cluster)}
    try:
        return row | measured(case, device, cluster, num_rounds)
    except torch.OutOfMemoryError as error:
        return row | {"error": f"out of memory: {str(error).splitlines()[0]}"}
    finally:
        gc.collect()
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def predicted(case: Case, cluster: ClusterSpec) -> dict[str, float]:
    """By the catalogue; the memory that the allocator is to have."""
    strategy = strategy_of(case, _kind(cluster))
    # a compiler joins neighbouring memory operations
    workload = transformer(case.shape.model_copy(update={"fused": case.compiled}))
    found = predict(workload, cluster, strategy)
    return {
        "predicted_step_s": found.step_time_s,
        "low_s": found.low_s,
        "high_s": found.high_s,
        "predicted_bytes": found.memory_bytes[0] - strategy.execution.context_bytes,
    }


def strategy_of(case: Case, kind: str) -> Strategy:
    """The plan of one device: one pass a step."""
    execution = execution_of(compiled=case.compiled, on_gpus=kind != "cpu").model_copy(update={"dtype": case.precision})
    share = ReplicaShare(device_kind=kind, num_samples=case.num_samples, micro_batch=case.num_samples)
    stage = StageStrategy(
        first_block=0, end_block=transformer(case.shape).num_blocks, replicas=(share,), recompute=case.recompute
    )
    return Strategy(global_batch=case.num_samples, stages=(stage,), execution=execution)


def measured(case: Case, device: torch.device, cluster: ClusterSpec, num_rounds: int) -> dict[str, Any]:
    """Our step by itself, then in turns with the plain one."""
    task, clock = NextToken(case.shape), Clock(device)
    rows = task.rows(case.num_samples)
    ours = Ours(case, task, rows, device, _kind(cluster))
    first_loss = ours.step()
    ours.step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.empty_cache()
    clock.time_s(ours.step, 3)
    memory: dict[str, int | None] = {"allocated_bytes": None, "reserved_bytes": None}
    if device.type == "cuda":
        memory["allocated_bytes"] = torch.cuda.max_memory_allocated(device)
        memory["reserved_bytes"] = torch.cuda.max_memory_reserved(device)
    theirs = Plain(case, rows["tokens"], device)
    other_loss = float(theirs.step())
    if not math.isclose(first_loss, other_loss, rel_tol=SAME_LOSS[case.precision]):
        raise SystemExit(f"{case.name}: our first loss is {first_loss}, theirs is {other_loss}")
    clock.time_s(theirs.step, 3)
    steps = max(1, round(0.5 / clock.time_s(ours.step, 3)))
    pairs = []
    for number in range(num_rounds):
        turn = [partial(clock.time_s, work, steps) for work in (ours.step, theirs.step)]
        pairs.append((turn[0](), turn[1]()) if number % 2 else (turn[1](), turn[0]())[::-1])
    ratios = [one / other for one, other in pairs]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    step_s = median(one for one, _ in pairs)
    return {
        **memory,
        "step_s": step_s,
        "tokens_per_s": case.num_samples * case.shape.seq_len / step_s,
        "peer_step_s": median(other for _, other in pairs),
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


class Ours:
    """The executor."""

    def __init__(
        self, case: Case, task: NextToken, rows: dict[str, torch.Tensor], device: torch.device, kind: str
    ) -> None:
        torch.manual_seed(0)
        precision: Literal["bf16", "fp32"] = "bf16" if case.precision == "bf16" else "fp32"
        self.engine = Engine(
            task,
            strategy_of(case, kind),
            example=rows,
            settings=EngineSettings(precision=precision, compiles=case.compiled),
            device=device,
        )
        # a plain loop would have its rows on the device as well
        self.rows = {name: tensor.to(device) for name, tensor in rows.items()}
        self.indices, self.number = torch.arange(case.num_samples, device=device), 0

    def step(self) -> float:
        """One step; its mean loss."""
        self.number += 1
        return self.engine.step(self.rows, self.indices, number=self.number, learning_rate=RATE).loss


class Plain:
    """The plainest compiled loop."""

    def __init__(self, case: Case, tokens: torch.Tensor, device: torch.device) -> None:
        torch.manual_seed(0)
        self.tokens, self.dtype = tokens.to(device), torch.bfloat16 if case.precision == "bf16" else None
        model = GPT(case.shape).to(device)
        if case.recompute == "full":
            for layer in model.layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        self.model = torch.compile(model) if case.compiled else model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def step(self) -> torch.Tensor:
        """One step; its mean loss, still on the device."""
        with torch.autocast(self.tokens.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            loss = summed_loss(self.model, self.tokens) / self.tokens[:, 1:].numel()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        detached: torch.Tensor = loss.detach()
        return detached


HEADINGS = f"""{"":<36} {"step, ms":>9} {"predicted":>9} {"error":>7} {"GiB":>7} {"predicted":>9} {"error":>7} {"peer, ms":>9} {"ratio":>6}"""  # noqa: E501


def line_of(row: dict[str, Any]) -> str:
    """A case in the table."""
    if "error" in row:
        return f"{row['name']:<36} {row['error']}"
    step_s, predicted_s = row["step_s"], row["predicted_step_s"]
    cells = f"{row['name']:<36} {step_s * 1e3:9.2f} {predicted_s * 1e3:9.2f} {predicted_s / step_s - 1:+7.1%}"
    reserved, promised = row["reserved_bytes"], row["predicted_bytes"]
    if reserved is None:
        cells += f" {'':>7} {promised / 2**30:9.2f} {'':>7}"
    else:
        cells += f" {reserved / 2**30:7.2f} {promised / 2**30:9.2f} {promised / reserved - 1:+7.1%}"
    return f"{cells} {row['peer_step_s'] * 1e3:9.2f} {row['ratio']:6.3f}"


def summary_of(rows: list[dict[str, Any]]) -> str:
    """The mean errors, and how the ratio stands to the target."""
    done = [row for row in rows if "error" not in row]
    if not done:
        return "no case was measured"
    time = mean(abs(row["predicted_step_s"] / row["step_s"] - 1) for row in done)
    sized = [row for row in done if row["reserved_bytes"] is not None]
    text = f"\n{len(done)} cases: mean error of the step time {time:.1%}"
    if sized:
        text += f", of the memory {mean(abs(row['predicted_bytes'] / row['reserved_bytes'] - 1) for row in sized):.1%}"
    ratio = median(row["ratio"] for row in done)
    near = sum(row["ratio"] <= TARGET for row in done)
    return f"{text}; ratio {ratio:.3f} (median), {near} of {len(done)} cases within {TARGET}"


def _kind(cluster: ClusterSpec) -> str:
    return cluster.nodes[0].devices[0].kind


if __name__ == "__main__":
    main()
