"""The executor: one rank of a data-parallel run, from the first step or from the last committed checkpoint.

Pure torch.distributed; Ray Train, torchrun and a sweep's trial all call the same `execute`. What a step does depends on
(seed, step) and, for dropout and the like, on the rank: the rows come from `GlobalBatches`, torch's generator is seeded
anew every step, and the learning rate is a function of the step. So a checkpoint needs no state but the model's, the
optimizer's and its step, and a resumed run repeats the curve of an undisturbed one.

Batch normalisation sees one rank's micro-batch; its running statistics are rank 0's.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch

from heliostat.data.loader import GlobalBatches, share
from heliostat.errors import CheckpointError, UserError
from heliostat.references import did_you_mean
from heliostat.train import checkpoint, group, telemetry
from heliostat.train.evaluate import evaluate, tensors_of
from heliostat.train.job import TrainJob, TrainReport, TrainSettings
from heliostat.train.memory import PeakMemory
from heliostat.train.replica import Replica, warm_up
from heliostat.train.task import make_task

OPTIMIZER = "optimizer"
"""The part of a checkpoint that holds the optimizer's state."""

OnEpoch = Callable[[telemetry.EpochRecord], None]
"""Called on rank 0 at the end of every epoch, when its checkpoint is committed."""


def execute(job: TrainJob, *, num_threads: int, on_epoch: OnEpoch | None = None) -> TrainReport:
    """Train this rank's share of `job` to the end; the same report on every rank.

    Args:
        job: rank r of the process group runs replica r of its plan.
        num_threads: torch threads of this rank.
        on_epoch: told about every epoch that ends now; those before a resume are in the telemetry.

    Raises:
        UserError: the task, its parameters or the metric.
        TrainingFailure: the loss; the checkpoints before it are kept.
        StoreError: a checkpoint cannot be written.
        CheckpointError: the directory holds another run's checkpoints.

    """
    torch.set_num_threads(num_threads)
    started = time.monotonic()
    run = Run(job)
    run.train(on_epoch)
    return run.report(time.monotonic() - started)


def learning_rate(settings: TrainSettings, step: int, num_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `num_steps`: linear warm-up, then a cosine towards zero."""
    num_warmup = settings.warmup_fraction * num_steps
    if step < num_warmup:
        return settings.learning_rate * min(1.0, (step + 1) / num_warmup)
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Run:
    """One rank's side of a training run."""

    def __init__(self, job: TrainJob) -> None:
        assert group.size() == len(job.replicas), f"{group.size()} ranks for {len(job.replicas)} replicas"
        self._job = job
        self._settings = job.settings
        self._directory = Path(job.directory)
        self._checkpoints = self._directory / "checkpoints"
        self._share = job.replicas[group.rank()]
        self._shares = [replica.num_samples for replica in job.replicas]
        self._task = make_task(job.task, job.data, job.params)
        self._train = tensors_of(self._task.load("train"))
        self._validation = tensors_of(self._task.load("validation"))
        num_rows = len(next(iter(self._train.values())))
        self._batches = GlobalBatches(num_rows=num_rows, global_batch=job.plan.global_batch, seed=self._settings.seed)
        self._num_steps = self._settings.epochs * self._batches.num_steps_per_epoch
        warm_up()
        self._memory = PeakMemory()
        torch.manual_seed(self._settings.seed)
        self._replica = Replica(self._task, weight_decay=self._settings.weight_decay)
        group.copy_from_first(self._replica.model)
        self._resumed_from = self._resume()

    def train(self, on_epoch: OnEpoch | None) -> None:
        """All steps that are not done yet, with their checkpoints and telemetry."""
        first = self._resumed_from or 0
        with telemetry.Writer(telemetry.file_of(self._directory, group.rank())) as writer:
            writer.write(self._attempt(first))
            writer.flush()
            for step in range(first, self._num_steps):
                writer.write(self._step(step))
                if (step + 1) % self._batches.num_steps_per_epoch == 0:
                    epoch = self._end_epoch(step + 1)
                    if group.rank() == 0:
                        writer.write(epoch)
                        writer.flush()
                    self._commit(step + 1, epoch.metrics)
                    if on_epoch is not None and group.rank() == 0:
                        on_epoch(epoch)
                elif (step + 1) % self._settings.checkpoint_every_steps == 0:
                    self._commit(step + 1, {})

    def report(self, wall_s: float) -> TrainReport:
        """What became of the run, all attempts together; the steps' times are those of the telemetry."""
        steps = telemetry.steps(telemetry.file_of(self._directory, group.rank()))
        own = (median([step.compute_s for step in steps] or [0.0]), self._memory.added_bytes())
        compute_s, peak_memory_bytes = zip(*group.gather(own), strict=True)
        step_time_s = median([step.compute_s + step.sync_s for step in steps] or [0.0])
        path = group.from_first(self._best() if group.rank() == 0 else None)
        assert path is not None
        return TrainReport(
            num_steps=self._num_steps,
            metrics=checkpoint.verify(path).metrics,
            checkpoint=str(path),
            step_time_s=group.from_first(step_time_s),
            compute_s=compute_s,
            peak_memory_bytes=peak_memory_bytes,
            resumed_from_step=self._resumed_from,
            wall_s=group.from_first(wall_s),
        )

    def _step(self, step: int) -> telemetry.StepRecord:
        torch.manual_seed(_seed_of(self._settings.seed, step, group.rank()))
        rows = share(self._batches.indices(step), self._shares, group.rank())
        result = self._replica.step(
            self._train,
            torch.tensor(rows),
            number=step + 1,
            micro_batch=self._share.micro_batch,
            learning_rate=learning_rate(self._settings, step, self._num_steps),
        )
        return telemetry.StepRecord(
            step=step + 1,
            loss=result.loss,
            compute_s=result.compute_s,
            sync_s=result.sync_s,
            samples=len(rows),
            time=time.time(),
        )

    def _end_epoch(self, step: int) -> telemetry.EpochRecord:
        metrics = evaluate(
            self._task,
            self._replica.model,
            self._validation,
            shares=self._shares,
            micro_batch=self._share.micro_batch,
        )
        self._check_metric(metrics)
        return telemetry.EpochRecord(
            epoch=step // self._batches.num_steps_per_epoch, step=step, metrics=metrics, time=time.time()
        )

    def _check_metric(self, metrics: Mapping[str, float]) -> None:
        if self._settings.metric not in metrics:
            raise UserError(
                f"the task has no metric '{self._settings.metric}'{did_you_mean(self._settings.metric, metrics)}",
                where="the metric that says which checkpoint is best",
                next_step=f"choose among: {', '.join(metrics)}",
            )

    def _commit(self, step: int, metrics: Mapping[str, float]) -> None:
        if group.rank() != 0:
            return
        states = {
            checkpoint.MODEL: self._replica.model.state_dict(),
            OPTIMIZER: self._replica.optimizer.state_dict(),
        }
        checkpoint.commit(self._checkpoints, step=step, states=states, metrics=metrics, identity=self._job.identity)
        settings = self._settings
        checkpoint.retain(self._checkpoints, keep=settings.keep_checkpoints, metric=settings.metric, mode=settings.mode)

    def _resume(self) -> int | None:
        """Go on from the latest whole checkpoint, the same on all ranks; the step it holds."""
        path = group.from_first(checkpoint.latest(self._checkpoints) if group.rank() == 0 else None)
        if path is None:
            return None
        checkpoint.check_identity(path, self._job.identity)
        checkpoint.load_into(self._replica.model, path)
        self._replica.optimizer.load_state_dict(checkpoint.load(path, OPTIMIZER))
        return checkpoint.verify(path).step

    def _best(self) -> Path:
        path = checkpoint.best(self._checkpoints, self._settings.metric, self._settings.mode)
        if path is None:
            raise CheckpointError("no whole checkpoint has validation metrics", where=str(self._checkpoints))
        return path

    def _attempt(self, step: int) -> telemetry.AttemptRecord:
        return telemetry.AttemptRecord(
            rank=group.rank(),
            world_size=group.size(),
            pid=os.getpid(),
            step=step,
            total_steps=self._num_steps,
            time=time.time(),
        )


def _seed_of(*numbers: int) -> int:
    """One seed for torch from several numbers; different numbers give unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
