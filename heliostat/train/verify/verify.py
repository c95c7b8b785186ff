"""All checks of a job on its own ranks, before its first step. Nothing of them is left afterwards but what they say."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.train import group
from heliostat.train.apply.engine import CPU, EngineSettings
from heliostat.train.apply.roles import training_rounds
from heliostat.train.device import own_device
from heliostat.train.evaluate import tensors_of
from heliostat.train.job import TrainJob
from heliostat.train.profile import NUM_ROWS, profile_module
from heliostat.train.rows import loss_of, select
from heliostat.train.task import Task, Tensors, make_task
from heliostat.train.verify.contract import check_contract
from heliostat.train.verify.equality import NOT_COMPARED, check_equality, reference, tensors_at_cuts, trial
from heliostat.train.verify.room import HOST, place_for
from heliostat.train.verify.shrink import shrunk
from heliostat.train.verify.signature import check_signature
from heliostat.train.verify.still import still
from heliostat.train.verify.verification import Check, Verification


def verify(job: TrainJob, task: Task, tensors: Tensors, device: torch.device) -> Verification:
    """Check the loss contract, equality with one process, and what is communicated.

    Every rank of the job calls this, and gets the same. Rank 0 writes it into the job's directory. Whether the checks
    passed is for the caller to ask.

    Args:
        job: what is to be trained.
        task: of the job.
        tensors: the training rows.
        device: of this rank.

    Raises:
        TrainingFailure: the loss breaks its contract.
        PlanError: the model cannot be divided as the plan says.
    """
    started = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        checks = check_plan(
            task,
            job.plan.strategy,
            tensors,
            EngineSettings.of(job.settings),
            order=job.roles,
            seed=job.settings.seed,
            device=device,
        )
    found = group.from_first(Verification(checks=checks, seconds=time.monotonic() - started))
    if group.rank() == 0:
        found.write(Path(job.directory))
    return found


def verify_alone(job: TrainJob, *, num_threads: int) -> Verification:
    """`verify` without any training to follow.

    Raises:
        as `verify`; UserError: the task or its parameters.
    """
    torch.set_num_threads(num_threads)
    task = make_task(job.task, job.data, job.params)
    return verify(job, task, tensors_of(task.load("train")), own_device(job.plan))


def check_plan(
    task: Task,
    strategy: Strategy,
    tensors: Tensors,
    settings: EngineSettings,
    *,
    order: Sequence[int] | None = None,
    seed: int = 0,
    device: torch.device = CPU,
) -> tuple[Check, ...]:
    """All checks of a plan on its ranks; the same on every rank.

    Args:
        task: as the user wrote it.
        strategy: the plan.
        tensors: the training rows.
        settings: of the run; nothing is compiled here.
        order: the plan's rank that each process plays; None: its own.
        seed: of the model's initial values.
        device: of this rank.

    Raises:
        as `verify`.
    """
    quiet, settings = still(task), replace(settings, compiles=False)
    rounds = shrunk(training_rounds(strategy))
    torch.manual_seed(seed)
    model = quiet.model()
    place = group.from_first(place_for(model, device))
    contract = check_contract(quiet, model.to(place or HOST), tensors, place or HOST)
    del model
    expected = reference(quiet, tensors, rounds, settings, seed, place) if place is not None else []
    got = trial(quiet, strategy, order, tensors, rounds, settings, seed, device)
    equality = check_equality(expected, got.outcomes, settings, rounds) if place is not None else NOT_COMPARED
    seen = (_workload(quiet, tensors), tensors_at_cuts(quiet, tensors, strategy, seed)) if group.rank() == 0 else None
    workload, num_tensors = cast("tuple[WorkloadProfile, dict[int, int]]", group.from_first(seen))
    facts = group.gather(got.facts)
    return contract, equality, check_signature(workload, strategy, got.roles, rounds, num_tensors, facts)


def _workload(task: Task, tensors: Tensors) -> WorkloadProfile:
    """The model as the planner sees it."""
    return profile_module(
        task.model(),
        select(tensors, slice(NUM_ROWS)),
        lambda model, rows: loss_of(task, model, dict(rows), where="verifying the plan")[0],
    )
