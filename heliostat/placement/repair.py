"""The smallest change that makes a plan fit into memory: one setting of the stages that do not fit, else two. Pure.

Among changes that are equally small the fastest plan wins.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.ground import Ground
from heliostat.placement.prediction import Prediction, predict
from heliostat.placement.strategy import StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile

SETTINGS: tuple[dict[str, Any], ...] = (
    {"recompute": "selective"},
    {"recompute": "full"},
    {"zero": 1},
    {"zero": 2},
    {"zero": 3},
    {"offload": True},
)
MOST_HALVINGS = 6
"""Of the micro-batch: to a 64th of it."""
LADDERS = {"recompute": ("none", "selective", "full"), "zero": (0, 1, 2, 3), "offload": (False, True)}
"""The values of a setting, each with less memory than the one before."""


class Repair(NamedTuple):
    """A plan that fits."""

    strategy: Strategy
    prediction: Prediction


def stages_too_full(cluster: ClusterSpec, strategy: Strategy, prediction: Prediction) -> tuple[int, ...]:
    """The stages with a device that lacks memory for its rank.

    Raises:
        PlanError: the cluster lacks devices of a kind.
    """
    ground = Ground(cluster)
    limits = dict(zip(ground.kinds, ground.memory_bytes, strict=True))
    needs = iter(prediction.memory_bytes)
    found = []
    for number, stage in enumerate(strategy.stages):
        ranks = [replica for replica in stage.replicas for _ in range(stage.ranks_per_replica)]
        if sum(next(needs) > limits[replica.device_kind] for replica in ranks):
            found.append(number)
    return tuple(found)


def repair(workload: WorkloadProfile, cluster: ClusterSpec, strategy: Strategy) -> Repair | None:
    """`strategy` with the smallest change that makes it fit; None if neither one change nor two do.

    Raises:
        PlanError: the cluster lacks devices of a kind.
        UserError: nothing tells how devices are joined.
    """
    full = stages_too_full(cluster, strategy, predict(workload, cluster, strategy))
    changes = list(_changes(strategy, full))
    for count in (1, 2):
        found = []
        for chosen in combinations(changes, count):
            changed = _changed(strategy, full, chosen)
            prediction = predict(workload, cluster, changed)
            if not stages_too_full(cluster, changed, prediction):
                found.append(Repair(changed, prediction))
        if found:
            return min(found, key=lambda one: one.prediction.step_time_s)
    return None


def _changes(strategy: Strategy, full: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Settings that save memory in some stage of `full`, and smaller micro-batches everywhere."""
    stages = [strategy.stages[number] for number in full]
    yield from (one for one in SETTINGS if any(_saves(stage, one) for stage in stages))
    largest = max(replica.micro_batch for stage in strategy.stages for replica in stage.replicas)
    for times in range(1, MOST_HALVINGS + 1):
        if largest >> times:
            yield {"halvings": times}


def _saves(stage: StageStrategy, setting: dict[str, Any]) -> bool:
    ((name, value),) = setting.items()
    if name == "zero" and len(stage.replicas) * stage.context_parallel == 1:
        return False
    ladder: Sequence[Any] = LADDERS[name]
    return ladder.index(value) > ladder.index(getattr(stage, name))


def _changed(strategy: Strategy, full: Sequence[int], changes: Sequence[dict[str, Any]]) -> Strategy:
    stages = list(strategy.stages)
    for change in changes:
        if "halvings" in change:
            stages = [_with_smaller_batches(stage, change["halvings"]) for stage in stages]
        else:
            for number in full:
                if _saves(stages[number], change):
                    stages[number] = stages[number].model_copy(update=change)
    return Strategy.model_validate({**strategy.model_dump(), "stages": [stage.model_dump() for stage in stages]})


def _with_smaller_batches(stage: StageStrategy, halvings: int) -> StageStrategy:
    replicas = [one.model_copy(update={"micro_batch": max(1, one.micro_batch >> halvings)}) for one in stage.replicas]
    return stage.model_copy(update={"replicas": tuple(replicas)})
