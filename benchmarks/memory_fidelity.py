"""Predicted memory per device against measured runs and against PyTorch's memory tracker.

    python benchmarks/memory_fidelity.py [--data DIR] [--only NAME] [--json FILE]

With `--data DIR`: the rows with memory of its CSV files (`records.read_runs`). torchtitan states the most that the CUDA
allocator reserved on any rank (`max_reserved_gib`), so what lies outside of the allocator is left out of the
prediction. Then sharded configurations that `tracked_step.py` runs without devices, each in a process of its own. The
tracker has no context, streams or fragmentation, so `reserve` is left out. It sees that a single micro-batch has no
gradients while it has all its activations; on devices scattered gradients have their own stream's memory.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tracked_step import Case  # type: ignore[import-not-found]

from heliostat.placement.efficiency import fitted
from heliostat.placement.fit import predict_runs
from heliostat.placement.memory import STEP_BYTES, rank_memory, replica_memory
from heliostat.placement.records import read_runs
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

GIB = 1 << 30
NEAR = 0.10


def gpt(hidden: int, layers: int, vocabulary: int, seq_len: int) -> Transformer:
    """Heads of 64."""
    return Transformer(
        name=f"GPT {hidden}x{layers}", hidden=hidden, layers=layers, heads=hidden // 64, seq_len=seq_len,
        vocabulary=vocabulary, tied=False,
    )  # fmt: skip


def llama(hidden: int, layers: int, vocabulary: int, seq_len: int, **fields: Any) -> Transformer:
    """Heads of 64; four of them have keys and values of their own."""
    return Transformer(
        name=f"Llama {hidden}x{layers}", hidden=hidden, layers=layers, heads=hidden // 64, kv_heads=4,
        feed_forward=hidden * 11 // 4, gated=True, bias="none", norm="rms", positions="none", seq_len=seq_len,
        vocabulary=vocabulary, tied=False, **fields,
    )  # fmt: skip


SMALL, WIDE = gpt(768, 12, 50304, 1024), gpt(2048, 4, 1024, 256)
MEDIUM, DEEP = llama(1024, 16, 32000, 2048), llama(2048, 4, 32000, 256)
SPLIT = llama(512, 4, 4096, 256, loss="parallel")
CASES = (
    Case(shape=SMALL, data_parallel=8),
    Case(shape=SMALL, data_parallel=8, micro_batch=4, num_micro_batches=1),
    Case(shape=SMALL, data_parallel=8, micro_batch=4, recompute="full"),
    Case(shape=SMALL, data_parallel=2, dtype="fp32"),
    Case(shape=SMALL, data_parallel=8, zero=2),
    Case(shape=SMALL, data_parallel=8, zero=2, dtype="fp32", recompute="full"),
    Case(shape=WIDE, data_parallel=8),
    Case(shape=WIDE, data_parallel=2, dtype="fp32"),
    Case(shape=WIDE, data_parallel=8, micro_batch=4, recompute="full"),
    Case(shape=WIDE, data_parallel=8, micro_batch=4, zero=2, num_micro_batches=1),
    Case(shape=WIDE, data_parallel=64, zero=2, recompute="full"),
    Case(shape=MEDIUM, data_parallel=16),
    Case(shape=MEDIUM, data_parallel=64, micro_batch=2, recompute="full"),
    Case(shape=MEDIUM, data_parallel=4, zero=2),
    Case(shape=DEEP, data_parallel=4),
    Case(shape=DEEP, data_parallel=16, micro_batch=2),
    Case(shape=DEEP, data_parallel=32, micro_batch=8, recompute="full"),
    Case(shape=SPLIT, data_parallel=4, tensor_parallel=2),
    Case(shape=SPLIT, data_parallel=2, tensor_parallel=4, micro_batch=4, recompute="full"),
    Case(shape=SPLIT, data_parallel=2, tensor_parallel=4, zero=2, dtype="fp32"),
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="", help="tracked configurations whose name has this in it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    if options.data:
        report["measured"] = table("measured on devices", measured_rows(options.data))
    report["tracked"] = table("counted by FSDPMemTracker", tracked_rows(options.only))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def measured_rows(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Runs that state their memory: name, measured and predicted bytes."""
    runs = [run for run in read_runs(folder) if run.memory_gib is not None]
    for run, one in zip(runs, predict_runs(runs, fitted()), strict=True):
        uses = replica_memory(run.workload, run.strategy, one.in_flight)
        predicted = max(use.total for stage in uses for use in stage) - run.strategy.execution.context_bytes
        yield f"{run.workload.name} {run.label}", (run.memory_gib or 0.0) * GIB, predicted


def tracked_rows(part: str) -> Iterator[tuple[str, float, float]]:
    """Configurations: name, tracked and predicted bytes."""
    script = Path(__file__).with_name("tracked_step.py")
    for case in CASES:
        if part in name_of(case):
            command = [sys.executable, str(script), case.model_dump_json()]
            result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            yield name_of(case), json.loads(result.stdout.splitlines()[-1])["peak_bytes"], predicted_bytes(case)


def name_of(case: Case) -> str:
    """In words."""
    return (
        f"{case.shape.name} dp={case.data_parallel} tp={case.tensor_parallel} zero={case.zero} {case.dtype} "
        f"recompute={case.recompute} {case.num_micro_batches} x {case.micro_batch} x {case.shape.seq_len}"
    )


def predicted_bytes(case: Case) -> float:
    """What the planner counts of it, without reserve."""
    workload = transformer(case.shape)
    num_samples = case.micro_batch * case.num_micro_batches
    share = ReplicaShare(device_kind="cpu", num_samples=num_samples, micro_batch=case.micro_batch)
    stage = StageStrategy.model_validate(
        {
            "first_block": 0,
            "end_block": workload.num_blocks,
            "replicas": (share,) * case.data_parallel,
            "tensor_parallel": case.tensor_parallel,
            "sequence_parallel": case.tensor_parallel > 1,
            "zero": case.zero,
            "recompute": case.recompute,
        }
    )
    execution = Execution.model_validate({"dtype": case.dtype, "parameter_bytes": 4, "state_bytes": 8})
    strategy = Strategy(global_batch=num_samples * case.data_parallel, stages=(stage,), execution=execution)
    use = rank_memory(workload, strategy, stage, share, 1)
    passing = use.activations + use.temporary
    if case.num_micro_batches > 1:
        return use.parameters + use.optimizer + use.gradients + passing
    step = use.gradients * (1 + STEP_BYTES / execution.accumulate_bytes)
    return use.parameters + use.optimizer + max(passing, step)


def table(title: str, rows: Iterator[tuple[str, float, float]]) -> dict[str, Any]:
    """Print rows as they come, and their errors; the same as a dictionary."""
    print(f"\nPeak memory per device, GiB, {title}\n  {'true':>8} {'predicted':>9} {'error':>7}")
    found, errors = [], list[float]()
    for name, true, predicted in rows:
        error = predicted / true - 1
        mark = "" if abs(error) <= NEAR else "  <- beyond 10 %"
        print(f"  {true / GIB:8.3f} {predicted / GIB:9.3f} {error:+7.1%}  {name}{mark}", flush=True)
        found.append({"name": name, "true_bytes": true, "predicted_bytes": predicted, "error": error})
        errors.append(error)
    summary = summary_of(errors)
    print("  " + ", ".join(f"{name} {value:+.2%}" for name, value in summary.items()), end="")
    print(f", {sum(abs(error) <= NEAR for error in errors)} of {len(errors)} rows within 10 %")
    return {"rows": found, **summary}


def summary_of(errors: Sequence[float]) -> dict[str, float]:
    """The mean absolute error and the worst on either side."""
    return {
        "mape": sum(map(abs, errors)) / max(1, len(errors)),
        "lowest": min(errors, default=0.0),
        "highest": max(errors, default=0.0),
    }


if __name__ == "__main__":
    main()
