"""How long training steps of a task take: on this device by itself, and among the ranks together."""

import time
from collections.abc import Sequence
from statistics import median

import torch

from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy
from heliostat.train import group
from heliostat.train.apply.engine import PLAIN, Engine, EngineSettings
from heliostat.train.apply.roles import training_rounds
from heliostat.train.block_timing import measure_blocks
from heliostat.train.fitting import fit_line, rounds_until
from heliostat.train.step_timing import StepTiming
from heliostat.train.task import Task, Tensors

BUDGET_S = 2.0
"""Time for the steps, after a first round that warms up."""
NUM_WARM_UP, NUM_GANG_STEPS = 5, 40


def measure_step(
    task: Task, tensors: Tensors, *, micro_batches: Sequence[int], settings: EngineSettings = PLAIN
) -> StepTiming:
    """Time real training steps of one rank by itself, in several sizes that take turns, so that drift hits all alike.

    Args:
        task: what to train; the learning rate is zero, so that nothing can run away.
        tensors: rows to draw from.
        micro_batches: at least two different sizes; each step is one micro-batch.
        settings: how the steps compute.

    """
    assert group.size() == 1, "ranks in a process group would wait for each other"
    engine = Engine(task, replicas(1, micro_batches[0]), example=tensors, settings=settings)
    rounds = {size: training_rounds(replicas(1, size)) for size in micro_batches}
    num_rows = len(next(iter(tensors.values())))
    passes: dict[int, list[float]] = {size: [] for size in micro_batches}
    updates: list[float] = []
    for number in rounds_until(BUDGET_S):
        for size, times in passes.items():
            rows = torch.randint(num_rows, (size,))
            result = engine.step(tensors, rows, number=number, learning_rate=0.0, rounds=rounds[size])
            if number > 0:
                times.append(result.passes_s)
                updates.append(result.update_s)
    micro_batch_s, sample_s = fit_line(list(passes), [median(times) for times in passes.values()])
    blocks = measure_blocks(task, tensors, micro_batches=micro_batches, precision=settings.precision)
    return StepTiming(micro_batch_s=micro_batch_s, sample_s=sample_s, optimizer_s=median(updates), blocks=blocks)


def measure_gang(task: Task, tensors: Tensors, *, micro_batch: int, settings: EngineSettings = PLAIN) -> float:
    """Time real training steps of all ranks of the process group together; the median, which all ranks share.

    Every rank calls this and takes `micro_batch` rows in each step.
    """
    num_ranks = group.size()
    engine = Engine(task, replicas(num_ranks, micro_batch), example=tensors, settings=settings)
    num_rows = len(next(iter(tensors.values())))
    times: list[float] = []
    for number in range(NUM_WARM_UP + NUM_GANG_STEPS):
        rows = torch.randint(num_rows, (num_ranks * micro_batch,))
        started = time.perf_counter()
        engine.step(tensors, rows, number=number, learning_rate=0.0)
        if number >= NUM_WARM_UP:
            times.append(time.perf_counter() - started)
    return median(times)


def replicas(num_ranks: int, micro_batch: int) -> Strategy:
    """Ranks that each run the whole model on one micro-batch a step."""
    share = ReplicaShare(device_kind="this", num_samples=micro_batch, micro_batch=micro_batch)
    stage = StageStrategy(first_block=0, end_block=1, replicas=(share,) * num_ranks)
    return Strategy(global_batch=num_ranks * micro_batch, stages=(stage,))
