"""What a strategy takes on the devices of a cluster: seconds per step, where they go, and bytes per device. Pure."""

from pydantic import NonNegativeFloat, NonNegativeInt

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.ground import Ground
from heliostat.placement.memory import replica_memory
from heliostat.placement.stage_time import StageTimer
from heliostat.placement.step_time import StepPrediction, predict_step
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.values import Frozen


class StageCost(Frozen):
    """One stage: seconds of one step of its slowest replica, and bytes of its fullest rank."""

    seconds: dict[str, NonNegativeFloat]
    """By what they go to: compute, recompute, tensor, gather, host, bubble, sync, optimizer."""
    memory_bytes: dict[str, NonNegativeFloat]
    """By what they hold: parameters, gradients, optimizer, activations, temporary, reserve."""


class Prediction(Frozen):
    """What a plan is expected to cost."""

    step_time_s: NonNegativeFloat
    low_s: NonNegativeFloat
    """Between this and `high_s` four steps of five are expected."""
    high_s: NonNegativeFloat
    memory_bytes: tuple[NonNegativeInt, ...]
    """Peak of every rank: stage by stage, replica by replica, tensor-parallel neighbours together."""
    stages: tuple[StageCost, ...]


def predict(
    workload: WorkloadProfile, cluster: ClusterSpec, strategy: Strategy, constants: Efficiencies | None = None
) -> Prediction:
    """Predict step time and memory of `strategy` on the devices of `cluster`.

    Raises:
        PlanError: the cluster lacks devices of a kind.
        UserError: nothing tells how devices are joined.
    """
    ground = Ground(cluster, constants)
    timer = StageTimer(ground.constants.shared)
    return prediction_of(workload, strategy, predict_step(workload, strategy, ground.hardware_of(strategy), timer))


def prediction_of(workload: WorkloadProfile, strategy: Strategy, step: StepPrediction) -> Prediction:
    """`step` with the memory of every rank."""
    memory = replica_memory(workload, strategy, step.in_flight)
    low_s, high_s = step.band_s
    return Prediction(
        step_time_s=step.step_s,
        low_s=low_s,
        high_s=high_s,
        memory_bytes=tuple(
            int(use.total)
            for stage, uses in zip(strategy.stages, memory, strict=True)
            for use in uses
            for _ in range(stage.ranks_per_replica)
        ),
        stages=tuple(
            StageCost(
                seconds={name.removesuffix("_s"): max(0.0, value) for name, value in one._asdict().items()},
                memory_bytes=max(uses, key=lambda use: use.total)._asdict(),
            )
            for one, uses in zip(step.stages, memory, strict=True)
        ),
    )
