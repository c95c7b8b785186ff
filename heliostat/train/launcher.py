"""Run a job on Ray Train: exactly placed workers, started again from our own checkpoints when one is lost.

Ray Train keeps the workers alive and knows nothing of parallelism. Where they go is decided anew before every start of
the group, because a restart may find other devices free. Nothing is reported to Ray: progress is in the telemetry and
state is in the checkpoints, so a restart and a new run of the same job go on in the same way.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

# The worker group's own hooks: the public callbacks of Ray 2.60 cannot pin each worker to its node.
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupContext, WorkerGroupPollStatus
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from heliostat.errors import HeliostatError, TrainingFailure
from heliostat.placement import gang
from heliostat.placement.placement import Placement
from heliostat.train import device
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.loop import execute
from heliostat.train.verify.verification import Verification
from heliostat.train.verify.verify import verify_alone

POLL_INTERVAL_S = "0.3"
"""How often Ray Train looks after its workers, unless the environment says otherwise; its own default is 2 s."""
_PLACEMENT, _ATTEMPT = "HELIOSTAT_PLACEMENT", "HELIOSTAT_ATTEMPT"
"""Environment of a worker: what it is told between its start and the start of training."""


def launch(job: TrainJob, placement_for: Callable[[], Placement], cpus_per_rank: int) -> TrainReport:
    """Train `job` on a gang of Ray workers, to the end.

    Args:
        job: with any plan; each rank plays the role that its placement says.
        placement_for: decides where the ranks go; called in Ray Train's controller process before each start.
        cpus_per_rank: cores of every rank, and its torch threads.

    Raises:
        PlacementError: there is no placement, or Ray did not follow it.
        HeliostatError: whatever a rank raised on purpose; starting again would not help, so nothing is retried.
        TrainingFailure: a worker was lost after `max_restarts` restarts.

    """
    report: TrainReport = _run(_train, job, placement_for, cpus_per_rank)
    return report


def verify(job: TrainJob, placement_for: Callable[[], Placement], cpus_per_rank: int) -> Verification:
    """Check the plan of `job` on a gang of Ray workers, and train nothing.

    Args:
        job: with any plan.
        placement_for: as of `launch`.
        cpus_per_rank: as of `launch`.

    Raises:
        as `launch`; a check that fails is no error, but a broken loss contract is one.
    """
    found: Verification = _run(_verify, job, placement_for, cpus_per_rank)
    return found


def _run(
    act: Callable[[dict[str, Any]], Any],
    job: TrainJob,
    placement_for: Callable[[], Placement],
    cpus_per_rank: int,
) -> Any:
    """What `act` returns on rank 0."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_INTERVAL_S)
    num_ranks = job.plan.num_ranks
    kinds = (replica.device_kind for stage in job.plan.stages for replica in stage.replicas)
    resources = gang.resources(kinds, cpus_per_rank)
    trainer = TorchTrainer(
        act,
        train_loop_config={"job": job.model_dump_json(), "num_threads": cpus_per_rank},
        torch_config=TorchConfig(backend=device.backend_of(job.plan)),
        scaling_config=ScalingConfig(
            num_workers=num_ranks,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            label_selector=[{} for _ in range(num_ranks)],
        ),
        run_config=RunConfig(
            name=uuid4().hex,  # Ray Train would resume a run whose name it has seen
            storage_path=str(Path(job.directory, "ray").absolute()),
            failure_config=FailureConfig(max_failures=job.settings.max_restarts),
            callbacks=[_Pin(placement_for)],
            worker_runtime_env={"env_vars": {"PYTHONPATH": _python_path(job)}},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        result = trainer.fit()
    except ControllerError as error:
        if isinstance(error.controller_failure, HeliostatError):
            raise error.controller_failure from None
        raise
    except WorkerGroupError as error:
        raise gave_up(job, error) from error
    return result.return_value


class _Pin(WorkerGroupCallback):  # type: ignore[misc]
    """Puts every worker on the node of its rank, and ends the run at an error that a restart would only repeat."""

    def __init__(self, placement_for: Callable[[], Placement]) -> None:
        self._placement_for = placement_for
        self._placement: Placement | None = None
        self._attempt = -1

    def before_worker_group_start(self, worker_group_context: WorkerGroupContext) -> None:
        """Place the ranks, just before Ray asks for the placement group."""
        self._attempt += 1
        self._placement = self._placement_for()
        selectors = gang.label_selectors(self._placement)
        for selector, wanted in zip(worker_group_context.label_selector, selectors, strict=True):
            selector.clear()
            selector.update(wanted)

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Check that Ray followed, and tell the workers."""
        assert self._placement is not None
        gang.verify(self._placement, [worker.metadata.node_id for worker in worker_group.get_workers()])
        worker_group.execute(_remember, self._placement.model_dump_json(), self._attempt)

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """End the run at an error raised on purpose: it is not the worker's fault."""
        for error in worker_group_status.errors.values():
            if isinstance(error, HeliostatError):
                raise error


def _remember(placement: str, attempt: int) -> None:
    os.environ[_PLACEMENT] = placement
    os.environ[_ATTEMPT] = str(attempt)


def _train(config: dict[str, Any]) -> TrainReport:
    """What every worker runs."""
    job, placement = _placed(config)
    report = execute(job, num_threads=config["num_threads"])
    return report.model_copy(update={"placement": placement, "num_restarts": int(os.environ[_ATTEMPT])})


def _verify(config: dict[str, Any]) -> Verification:
    """What every worker runs that only checks."""
    job, _ = _placed(config)
    return verify_alone(job, num_threads=config["num_threads"])


def _placed(config: dict[str, Any]) -> tuple[TrainJob, Placement]:
    placement = Placement.model_validate_json(os.environ[_PLACEMENT])
    return TrainJob.model_validate_json(config["job"]).placed(placement), placement


def _python_path(job: TrainJob) -> str:
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([*job.code_paths, *([inherited] if inherited else [])])


def gave_up(job: TrainJob, error: WorkerGroupError) -> TrainingFailure:
    """What to tell when the restarts are used up: the last failure of every rank."""
    failures = [
        f"rank {rank}: {type(failure).__name__}: {str(failure).strip().splitlines()[-1]}"
        for rank, failure in sorted(error.worker_failures.items())
    ]
    return TrainingFailure(
        f"training stopped: a worker was lost after {job.settings.max_restarts} restarts",
        where=job.directory,
        got="; ".join(failures),
        causes=("a machine ran out of memory", "a machine or its network failed", "an error in the task's own code"),
        next_step="remove the cause and run again: training goes on from its last checkpoint",
    )
