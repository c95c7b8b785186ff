"""Step time of the executor against a hand-written DistributedDataParallel loop of the same model.

    python benchmarks/ddp_overhead.py [--ranks 2] [--rounds 30] [--json FILE]

The script starts itself under torchrun: gloo ranks with one thread each, each on a core of its own where there are as
many. Both loops train the same GPT with the same rows and AdamW and live in the same processes. They take turns: in
every round each makes a few steps, first one then the other, the order changing from round to round, so that drift of
the machine hits both alike. Of each turn the slowest rank's time counts. The ratio of a round is ours over theirs; the
median over the rounds is given with its quartiles and the 95 % interval of the median. On a busy machine most turns
wait for other work; the ratio of the fastest turn of each says more of the loops then.

The peer is what a careful user writes: an even share of the batch per rank, mean loss, DDP with its defaults, fused
AdamW, nothing logged. Our step also checks the loss and the gradients and reports where its time went. Before anything
is timed both make the same steps from the same values, and their losses must agree to 1e-5.

The JSON file:

    {"ranks": 2, "shape": {...}, "global_batch": 16, "torch": "2.13.0", "median_ratio": ..., "quartiles": [low, high],
     "interval": [low, high], "fastest_ratio": ..., "rounds": [{"ours_s": ..., "theirs_s": ...}, ...],
     "within_target": true}

Times are seconds per step. The exit code is 0 whatever the ratio is.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.distributed as dist
from gpt import NextToken  # type: ignore[import-not-found]  # beside this file
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer
from heliostat.train.apply.engine import Engine
from heliostat.train.turns import Clock

TARGET = 1.03
SHAPE = Transformer(name="GPT", hidden=256, layers=4, heads=4, seq_len=64, vocabulary=1024, tied=False)
"""3.7 million parameters."""
SAMPLES_PER_RANK, STEPS_PER_TURN, STEPS_TO_AGREE = 8, 4, 4
RATE = 1e-3


class Ranks(Clock):
    """Times all ranks together."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def meet(self) -> None:
        """Wait for all."""
        dist.barrier()

    def slowest(self, values: Sequence[float]) -> list[float]:
        """The greatest over the ranks."""
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return [float(value) for value in shared]


class Theirs:
    """A plain loop."""

    def __init__(self, task: NextToken, tokens: torch.Tensor, num_samples: int) -> None:
        rank = dist.get_rank()
        self.tokens, self.num_samples = tokens, num_samples
        self.own = slice(rank * num_samples, (rank + 1) * num_samples)
        torch.manual_seed(0)
        self.model = DistributedDataParallel(task.model())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def step(self, indices: torch.Tensor) -> torch.Tensor:
        """One step; the mean loss of this rank's rows."""
        tokens = self.tokens[indices[self.own]]
        logits = self.model(tokens[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class Ours:
    """The executor with the plan that says the same."""

    def __init__(self, task: NextToken, tokens: torch.Tensor, num_samples: int) -> None:
        ranks = dist.get_world_size()
        share = ReplicaShare(device_kind="cpu", num_samples=num_samples, micro_batch=num_samples)
        blocks = transformer(task.shape).num_blocks
        stage = StageStrategy(first_block=0, end_block=blocks, replicas=(share,) * ranks)
        torch.manual_seed(0)
        self.rows = {"tokens": tokens}
        self.engine = Engine(task, Strategy(global_batch=ranks * num_samples, stages=(stage,)), example=self.rows)
        self.number = 0

    def step(self, indices: torch.Tensor) -> torch.Tensor:
        """One step; the mean loss of the global batch."""
        self.number += 1
        return torch.tensor(self.engine.step(self.rows, indices, number=self.number, learning_rate=RATE).loss)


def main() -> None:
    """Start the ranks, or be one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "RANK" not in os.environ:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.ranks}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.run([*launcher, *sys.argv], check=False, env=environment).returncode)  # noqa: S603
    report = rank_main(options.rounds)
    if dist.get_rank() == 0:
        show(report)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    dist.destroy_process_group()


def rank_main(num_rounds: int) -> dict[str, Any]:
    """One rank's part; the report."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    task = NextToken(SHAPE)
    tokens = task.rows(16 * ranks * SAMPLES_PER_RANK)["tokens"]
    ours, theirs = Ours(task, tokens, SAMPLES_PER_RANK), Theirs(task, tokens, SAMPLES_PER_RANK)
    check_that_they_agree(ours, theirs, len(tokens))
    rounds = timed(ours.step, theirs.step, len(tokens), num_rounds)
    ratios = [one["ours_s"] / one["theirs_s"] for one in rounds]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {
        "ranks": ranks,
        "shape": SHAPE.model_dump(),
        "global_batch": ranks * SAMPLES_PER_RANK,
        "torch": torch.__version__,
        "median_ratio": middle,
        "quartiles": [low, high],
        "interval": interval(ratios),
        "fastest_ratio": min(one["ours_s"] for one in rounds) / min(one["theirs_s"] for one in rounds),
        "rounds": rounds,
        "within_target": middle <= TARGET,
    }


def check_that_they_agree(ours: Ours, theirs: Theirs, num_rows: int) -> None:
    """Refuse to compare loops that compute different things."""
    for number in range(STEPS_TO_AGREE):
        indices = batch(number, num_rows)
        one, mean = ours.step(indices).item(), theirs.step(indices)
        dist.all_reduce(mean)
        other = mean.item() / dist.get_world_size()
        if not math.isclose(one, other, rel_tol=1e-5):
            sys.exit(f"step {number}: our loss is {one}, theirs is {other}")


def timed(
    ours: Callable[[torch.Tensor], object], theirs: Callable[[torch.Tensor], object], num_rows: int, num_rounds: int
) -> list[dict[str, float]]:
    """Seconds per step of both, for every round."""
    clock, found = Ranks(), []
    loops = {"ours_s": ours, "theirs_s": theirs}
    for number in range(num_rounds):
        seconds: dict[str, float] = {}
        for name in sorted(loops, reverse=bool(number % 2)):
            batches = iter([batch(number * STEPS_PER_TURN + at, num_rows) for at in range(STEPS_PER_TURN)])
            clock.meet()
            own = clock.time_s(partial(_next_step, loops[name], batches), STEPS_PER_TURN)
            [seconds[name]] = clock.slowest([own])
        found.append(seconds)
    return found


def _next_step(step: Callable[[torch.Tensor], object], batches: Iterator[torch.Tensor]) -> None:
    step(next(batches))


def batch(number: int, num_rows: int) -> torch.Tensor:
    """The rows of a step, the same on all ranks and for both loops."""
    size = dist.get_world_size() * SAMPLES_PER_RANK
    return torch.arange(number * size, (number + 1) * size) % num_rows


def interval(values: Sequence[float]) -> list[float]:
    """The 95 % interval of the median, from order statistics."""
    ordered = sorted(values)
    away, middle = 0.98 * math.sqrt(len(ordered)), (len(ordered) - 1) / 2
    return [ordered[max(0, math.floor(middle - away))], ordered[min(len(ordered) - 1, math.ceil(middle + away))]]


def show(report: dict[str, Any]) -> None:
    """Print it."""
    rounds = report["rounds"]
    (low, high), (first, third) = report["interval"], report["quartiles"]
    print(
        f"{report['ranks']} gloo ranks of one thread, {report['global_batch']} samples a step, torch {report['torch']}"
    )
    print(f"{len(rounds)} rounds of {STEPS_PER_TURN} steps each, in turns\n")
    print("              ms a step: median  fastest")
    for name, key in (("ours", "ours_s"), ("DDP loop", "theirs_s")):
        times = [one[key] * 1e3 for one in rounds]
        print(f"{name:<22} {median(times):8.2f} {min(times):8.2f}")
    print(f"\nratio of the fastest turns {report['fastest_ratio']:.4f}", end="")
    verdict = "within" if report["within_target"] else "beyond"
    print(
        f"\nratio {report['median_ratio']:.4f}, quartiles {first:.4f} to {third:.4f}, 95 % interval of the median ",
        end="",
    )
    print(f"{low:.4f} to {high:.4f}: {verdict} the target of {TARGET}")


if __name__ == "__main__":
    main()
