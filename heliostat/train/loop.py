"""The executor: one rank of a run, from the first step or from the last committed checkpoint, whatever the plan.

Pure torch.distributed; Ray Train, torchrun and a sweep's trial all call the same `execute`. What a step does depends on
(seed, step) and, for dropout and the like, on the replica: the rows come from `GlobalBatches`, torch's generator is
seeded anew every step, and the learning rate is a function of the step. So a checkpoint needs no state but the model's,
the optimizer's and its step, and a resumed run repeats the curve of an undisturbed one, under its own plan or another.

Batch normalisation sees one replica's micro-batch; its running statistics are the first replica's.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import torch

from heliostat.data.loader import GlobalBatches
from heliostat.errors import CheckpointError, UserError
from heliostat.references import did_you_mean
from heliostat.train import checkpoint, group, telemetry, trace
from heliostat.train.apply.engine import Engine, EngineSettings, StepResult
from heliostat.train.checkpointer import Checkpointer, Retention
from heliostat.train.device import own_device
from heliostat.train.evaluate import finite, tensors_of
from heliostat.train.job import TrainJob, TrainReport, TrainSettings
from heliostat.train.memory import PeakMemory, warm_up
from heliostat.train.pieces import Held
from heliostat.train.profiling.structure import canonical_names
from heliostat.train.task import make_task
from heliostat.train.trace import Tracer
from heliostat.train.verify.verify import verify

MEMORY_EVERY_STEPS = 20
"""How often a step's record says how much memory there is: to look takes 0.1 ms."""

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
        PlanError: the plan is not for this model, or was not verified.
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
        self._job = job
        self._settings = settings = job.settings
        self._directory = Path(job.directory)
        self._checkpoints = self._directory / "checkpoints"
        self._task = make_task(job.task, job.data, job.params)
        self._train = tensors_of(self._task.load("train"))
        self._validation = tensors_of(self._task.load("validation"))
        num_rows = len(next(iter(self._train.values())))
        self._batches = GlobalBatches(num_rows=num_rows, global_batch=job.plan.global_batch, seed=settings.seed)
        self._num_steps = settings.epochs * self._batches.num_steps_per_epoch
        device = own_device(job.plan)
        if settings.verify:
            verify(job, self._task, self._train, device).require()
        warm_up()
        self._memory = PeakMemory()
        torch.manual_seed(settings.seed)
        self._engine = Engine(
            self._task,
            job.plan.strategy,
            order=job.roles,
            example=self._train,
            settings=EngineSettings.of(settings),
            device=device,
        )
        self._scores: list[float] = []
        """The metric of every epoch."""
        self._resumed_from = self._resume()

    def train(self, on_epoch: OnEpoch | None) -> None:
        """All steps that are not done yet, with their checkpoints and telemetry."""
        first = self._resumed_from or 0
        with ExitStack() as stack:
            writer = stack.enter_context(telemetry.Writer(telemetry.file_of(self._directory, group.rank())))
            saver = stack.enter_context(self._checkpointer())
            tracer = stack.enter_context(
                Tracer(trace.file_of(self._directory, group.rank()), self._settings.trace_steps)
            )
            writer.write(self._attempt(first))
            writer.flush()
            for step in range(first, self._num_steps):
                tracer.before_step()
                writer.write(self._step(step))
                tracer.after_step()
                if (step + 1) % self._batches.num_steps_per_epoch == 0:
                    if self._end_epoch(step + 1, writer, saver, on_epoch):
                        break
                elif (step + 1) % self._settings.checkpoint_every_steps == 0:
                    self._save(saver, step + 1, {})

    def report(self, wall_s: float) -> TrainReport:
        """What became of the run, all attempts together; the steps' times are those of the telemetry."""
        steps = telemetry.steps(telemetry.file_of(self._directory, group.rank()))
        own = (_median(step.compute_s for step in steps), telemetry.median_parts(steps), self._memory.added_bytes())
        compute_s, parts_s, peak_memory_bytes = zip(*group.gather(own), strict=True)
        path = group.from_first(self._best() if group.rank() == 0 else None)
        assert path is not None
        return TrainReport(
            num_steps=group.from_first(max((step.step for step in steps), default=0)),
            metrics=checkpoint.verify(path).metrics,
            checkpoint=str(path),
            step_time_s=group.from_first(_median(step.step_s for step in steps)),
            compute_s=compute_s,
            elements_per_s=group.from_first(_median(step.elements_per_s for step in steps)),
            parts_s=parts_s,
            peak_memory_bytes=peak_memory_bytes,
            resumed_from_step=self._resumed_from,
            wall_s=group.from_first(wall_s),
            trace=str(trace.folder_of(self._directory)) if self._settings.trace_steps else None,
        )

    def _step(self, step: int) -> telemetry.StepRecord:
        role = self._engine.team.role
        torch.manual_seed(_seed_of(self._settings.seed, step, role.replica, role.stage))
        result: StepResult = self._engine.step(
            self._train,
            torch.tensor(self._batches.indices(step)),
            number=step + 1,
            learning_rate=learning_rate(self._settings, step, self._num_steps),
        )
        return telemetry.StepRecord(
            step=step + 1,
            loss=result.loss,
            gradient_norm=result.gradient_norm,
            num_elements=result.num_elements,
            passes_s=result.passes_s,
            wait_s=result.wait_s,
            sync_s=result.sync_s,
            update_s=result.update_s,
            memory_bytes=self._memory.added_bytes() if step % MEMORY_EVERY_STEPS == 0 else None,
            time=time.time(),
        )

    def _end_epoch(self, step: int, writer: telemetry.Writer, saver: Checkpointer, on_epoch: OnEpoch | None) -> bool:
        """Evaluate, tell and save; whether the run ends here."""
        predictions = self._engine.predict(self._validation)
        metrics = finite(self._task, self._task.metrics(predictions, self._validation["label"].numpy()))
        self._check_metric(metrics)
        self._scores.append(metrics[self._settings.metric])
        number = step // self._batches.num_steps_per_epoch
        epoch = telemetry.EpochRecord(epoch=number, step=step, metrics=metrics, time=time.time())
        if group.rank() == 0:
            writer.write(epoch)
            writer.flush()
        self._save(saver, step, metrics)
        if on_epoch is not None:
            saver.wait()
            if group.rank() == 0:
                on_epoch(epoch)
        return self._is_past_its_best()

    def _is_past_its_best(self) -> bool:
        """Whether as many epochs as `patience` allows were no better than one before."""
        patience, scores = self._settings.patience, self._scores
        best = scores.index(max(scores) if self._settings.mode == "max" else min(scores))
        return patience is not None and len(scores) - 1 - best >= patience

    def _check_metric(self, metrics: Mapping[str, float]) -> None:
        if self._settings.metric not in metrics:
            raise UserError(
                f"the task has no metric '{self._settings.metric}'{did_you_mean(self._settings.metric, metrics)}",
                where="the metric that says which checkpoint is best",
                next_step=f"choose among: {', '.join(metrics)}",
            )

    def _checkpointer(self) -> Checkpointer:
        settings = self._settings
        return Checkpointer(
            self._checkpoints,
            identity=self._job.identity,
            tied={name: first for name, first in canonical_names(self._engine.model).items() if name != first},
            retention=Retention(settings.keep_checkpoints, settings.metric, settings.mode),
        )

    def _save(self, saver: Checkpointer, step: int, metrics: Mapping[str, float]) -> None:
        saver.save(step, self._held(), metrics)

    def _resume(self) -> int | None:
        """Go on from the latest whole checkpoint, the same on all ranks; the step it holds."""
        path = group.from_first(checkpoint.latest(self._checkpoints) if group.rank() == 0 else None)
        if path is None:
            return None
        checkpoint.check_identity(path, self._job.identity)
        step = checkpoint.read(path, self._held()).step
        self._engine.restored(step)
        epochs = telemetry.epochs(telemetry.file_of(self._directory, 0))
        self._scores = [one.metrics[self._settings.metric] for one in epochs if one.step <= step]
        return step

    def _held(self) -> dict[str, dict[str, Held]]:
        return {checkpoint.MODEL: self._engine.model_held(), checkpoint.OPTIMIZER: self._engine.optimizer_held()}

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


def _median(values: Iterable[float]) -> float:
    return median([*values] or [0.0])


def _seed_of(*numbers: int) -> int:
    """One seed for torch from several numbers; different numbers give unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
