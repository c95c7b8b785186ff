"""When each stage does what in one step: the simulated passes behind a prediction, and what follows them. Pure."""

from typing import NamedTuple

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.ground import Ground
from heliostat.placement.schedule import Pass, simulate
from heliostat.placement.stage_time import StageTimer
from heliostat.placement.step_time import predict_step, stage_times
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile


class StepTimeline(NamedTuple):
    """One step, from its beginning."""

    step_s: float
    pipeline_s: float
    """When the last pass ends."""
    passes: tuple[Pass, ...]
    sync_s: tuple[float, ...]
    """For each stage the gradient synchronisation after the passes."""
    optimizer_s: tuple[float, ...]
    """For each stage the update after that."""
    in_flight: tuple[int, ...]
    """For each stage the most micro-batches, of one chunk each, whose activations it holds at once."""


def timeline(
    workload: WorkloadProfile, cluster: ClusterSpec, strategy: Strategy, constants: Efficiencies | None = None
) -> StepTimeline:
    """The step that `predict` foretells for the same arguments, pass by pass.

    Raises:
        PlanError: the cluster lacks devices of a kind.
        UserError: nothing tells how devices are joined.
    """
    ground = Ground(cluster, constants)
    hardware, timer = ground.hardware_of(strategy), StageTimer(ground.constants.shared)
    step = predict_step(workload, strategy, hardware, timer)
    times = stage_times(workload, strategy, hardware, timer)
    line = simulate(strategy.schedule, times, strategy.num_micro_batches, keep=True)
    return StepTimeline(
        step_s=step.step_s,
        pipeline_s=line.total_s,
        passes=line.passes,
        sync_s=tuple(stage.sync_s for stage in step.stages),
        optimizer_s=tuple(stage.optimizer_s for stage in step.stages),
        in_flight=line.in_flight,
    )
