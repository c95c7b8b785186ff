"""The smallest change that makes a plan fit into memory: one setting of the stages that do not fit, else two. Pure.

Among changes that are equally small the fastest plan wins.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from pydantic import ValidationError

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.ground import Ground
from heliostat.placement.prediction import Prediction, predict
from heliostat.placement.search.menu import goes_with
from heliostat.placement.search.shares import step_samples
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
            if changed is None:
                continue
            prediction = predict(workload, cluster, changed)
            if not stages_too_full(cluster, changed, prediction):
                found.append(Repair(changed, prediction))
        if found:
            return min(found, key=lambda one: one.prediction.step_time_s)
    return None


def _changes(strategy: Strategy, full: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Settings that save memory in some stage of `full`, and smaller micro-batches everywhere."""
    stages = [strategy.stages[number] for number in full]
    possible = [one for one in SETTINGS if goes_with(strategy.schedule, one.get("zero", 0))]
    yield from (one for one in possible if any(_saves(stage, one) for stage in stages))
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


def _changed(strategy: Strategy, full: Sequence[int], changes: Sequence[dict[str, Any]]) -> Strategy | None:
    """None if an interleaved schedule does not go with as many rounds."""
    stages = list(strategy.stages)
    for change in changes:
        if "halvings" in change:
            stages = _with_smaller_batches(strategy, stages, change["halvings"])
        else:
            for number in full:
                if _saves(stages[number], change):
                    stages[number] = stages[number].model_copy(update=change)
    try:
        return Strategy.model_validate({**strategy.model_dump(), "stages": [stage.model_dump() for stage in stages]})
    except ValidationError:
        return None


def _with_smaller_batches(strategy: Strategy, stages: Sequence[StageStrategy], halvings: int) -> list[StageStrategy]:
    """Smaller micro-batches; those of several stages add up to the same."""
    size = sum(replica.micro_batch for replica in stages[0].replicas) >> halvings
    found = []
    for stage in stages:
        own = [max(1, replica.micro_batch >> halvings) for replica in stage.replicas]
        if len(stages) == 1:
            samples = [replica.num_samples for replica in stage.replicas]
        else:
            own = _adding_up(own, max(size, *(len(one.replicas) for one in stages)))
            samples = step_samples(own, strategy.global_batch)
        replicas = [
            replica.model_copy(update={"num_samples": many, "micro_batch": micro})
            for replica, many, micro in zip(stage.replicas, samples, own, strict=True)
        ]
        found.append(stage.model_copy(update={"replicas": tuple(replicas)}))
    return found


def _adding_up(samples: Sequence[int], total: int) -> list[int]:
    """`samples` with as many more or fewer, one at least each, that they add up to `total`."""
    found = list(samples)
    while sum(found) != total:
        step = 1 if sum(found) < total else -1
        place = max(range(len(found)), key=lambda at: (found[at] > 1 or step > 0, -step * found[at], -at))
        found[place] += step
    return found
