"""What there is to say of a plan, in the order of a page: devices, stages, where time and memory go, what binds. Pure.

The words, the tables and the page of `heliostat plan` are all made of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from heliostat.cluster.spec import Origin
from heliostat.placement.constraints import Objective
from heliostat.placement.ground import Ground
from heliostat.placement.memory import MemoryUse, replica_memory
from heliostat.placement.plan_file import PlanFile
from heliostat.placement.prediction import Prediction
from heliostat.placement.search.outcome import Found
from heliostat.placement.strategy import ReplicaShare, StageStrategy
from heliostat.placement.timeline import StepTimeline, timeline
from heliostat.placement.view.words import (
    TIME_WORDS,
    blocks_in_words,
    change_in_words,
    devices_in_words,
    gib,
    seconds,
    strategy_in_words,
)
from heliostat.values import Frozen

TIME_PARTS = ("compute", "recompute", "tensor", "gather", "host", "bubble", "sync", "optimizer")
"""What a stage's step goes to, as `predict.StageBreakdown` names it."""
MEMORY_PARTS = MemoryUse._fields
SAME = 1e-4
"""Relative difference of step times up to which two plans are equally fast."""
FULL = 0.9
"""From this part of a device's memory on, memory is what binds."""


class DeviceGroup(Frozen):
    """Equal replicas of a stage."""

    kind: str
    num_replicas: int
    ranks_per_replica: int
    num_samples: int
    """Of each replica, per step."""
    micro_batch: int
    num_micro_batches: int
    memory_bytes: dict[str, float]
    """Of one rank, by what it holds."""
    capacity_bytes: int
    """Of the smallest device."""

    @property
    def num_ranks(self) -> int:
        """Devices."""
        return self.num_replicas * self.ranks_per_replica

    @property
    def used_bytes(self) -> float:
        """Of one rank at its peak."""
        return sum(self.memory_bytes.values())

    @property
    def fits(self) -> bool:
        """Whether the devices have that much."""
        return self.used_bytes <= self.capacity_bytes


class StageAccount(Frozen):
    """One stage."""

    number: int
    holds: str
    """Its blocks in words."""
    tensor_parallel: int
    sequence_parallel: bool
    context_parallel: int
    zero: int
    recompute: str
    offload: bool
    groups: tuple[DeviceGroup, ...]
    seconds: dict[str, float]
    in_flight: int

    @property
    def busy_s(self) -> float:
        """Of a step, without waiting for others."""
        return sum(self.seconds.values()) - self.seconds["bubble"]

    @property
    def num_ranks(self) -> int:
        """Devices."""
        return sum(group.num_ranks for group in self.groups)


class Rival(Frozen):
    """A plan that lost."""

    plan: str
    """In a line."""
    step_s: float
    why: str


class Account(Frozen):
    """The whole page."""

    name: str
    objective: Objective
    num_parameters: int
    seq_len: int
    global_batch: int
    dtype: str
    schedule: str
    devices: dict[str, int]
    """Of the cluster, by kind."""
    unused: dict[str, int]
    """Those of them that the plan leaves idle."""
    num_nodes: int
    origin: Origin
    measured: bool
    """Whether any figure of the cluster was measured on it."""
    target_s: float | None
    """Seconds that a step may take, where that was asked."""
    price_per_hour: float | None
    """Of the devices in use; None where not all prices are known."""
    step_s: float
    low_s: float
    high_s: float
    utilisation: float | None
    """Model FLOPs per second over the peak of the devices in use; None where nobody knows a peak, as of a CPU."""
    stages: tuple[StageAccount, ...]
    binding: tuple[str, ...]
    """What keeps it from being faster, in sentences."""
    rivals: tuple[Rival, ...]
    refused: dict[str, int]
    num_candidates: int
    cut_by_budget: bool

    @property
    def fits(self) -> bool:
        """Whether every device has the memory that its rank needs."""
        return all(group.fits for stage in self.stages for group in stage.groups)


def account_of(plan: PlanFile) -> tuple[Account, StepTimeline]:
    """The account of `plan`, and its step pass by pass.

    Raises:
        PlanError: the cluster lacks devices of a kind.
        UserError: nothing tells how devices are joined.
    """
    workload, strategy, prediction, cluster = plan.workload, plan.strategy, plan.prediction, plan.cluster
    line = timeline(workload, cluster, strategy)
    ground = Ground(cluster)
    memory = replica_memory(workload, strategy, line.in_flight)
    stages = tuple(
        StageAccount(
            number=number,
            holds=blocks_in_words(workload, stage, strategy),
            groups=tuple(_groups(ground, stage, uses)),
            seconds=_until(prediction.stages[number].seconds, prediction.step_time_s),
            in_flight=line.in_flight[number],
            **stage.model_dump(
                include={"tensor_parallel", "sequence_parallel", "context_parallel", "zero", "recompute", "offload"}
            ),
        )
        for number, (stage, uses) in enumerate(zip(strategy.stages, memory, strict=True))
    )
    kinds = Counter[str]()
    for stage in strategy.stages:
        for replica in stage.replicas:
            kinds[replica.device_kind] += stage.ranks_per_replica
    everything = cluster.count_by_kind()
    page = Account(
        name=workload.name,
        objective=plan.wanted.objective,
        num_parameters=workload.num_parameters,
        seq_len=workload.seq_len,
        global_batch=strategy.global_batch,
        dtype=strategy.execution.dtype,
        schedule=strategy.schedule,
        devices=everything,
        unused={kind: count - kinds[kind] for kind, count in everything.items() if count > kinds[kind]},
        num_nodes=len(cluster.nodes),
        origin=cluster.origin,
        measured=cluster.measured is not None,
        target_s=plan.wanted.target_s,
        price_per_hour=_price_per_hour(plan, kinds),
        step_s=prediction.step_time_s,
        low_s=prediction.low_s,
        high_s=prediction.high_s,
        utilisation=_utilisation(plan, ground, kinds),
        stages=stages,
        binding=tuple(_binding(stages)),
        rivals=tuple(_rival(plan, one) for one in plan.runners_up),
        refused=plan.refused,
        num_candidates=plan.num_candidates,
        cut_by_budget=plan.cut_by_budget,
    )
    return page, line


def _price_per_hour(plan: PlanFile, kinds: Mapping[str, int]) -> float | None:
    known = plan.wanted.price_per_hour
    prices = [(count, known.get(kind, known.get(kind.partition("@")[0]))) for kind, count in kinds.items()]
    if any(price is None for _, price in prices):
        return None
    return sum(count * (price or 0.0) for count, price in prices)


def _until(seconds_by_part: dict[str, float], step_s: float) -> dict[str, float]:
    """The parts with what is left of the step: a stage that is done waits for the others."""
    rest_s = step_s - sum(seconds_by_part.values())
    return {**seconds_by_part, "bubble": max(0.0, seconds_by_part["bubble"] + rest_s)}


def _groups(ground: Ground, stage: StageStrategy, uses: Sequence[MemoryUse]) -> Iterator[DeviceGroup]:
    """Replicas that follow one another and are equal."""
    capacities = dict(zip(ground.kinds, ground.memory_bytes, strict=True))
    for replica, equal in groupby(zip(stage.replicas, uses, strict=True), key=lambda row: row[0]):
        members = list(equal)
        yield _group(stage, replica, members[0][1], len(members), capacities[replica.device_kind])


def _group(stage: StageStrategy, replica: ReplicaShare, use: MemoryUse, count: int, capacity: int) -> DeviceGroup:
    return DeviceGroup(
        kind=replica.device_kind,
        num_replicas=count,
        ranks_per_replica=stage.ranks_per_replica,
        num_samples=replica.num_samples,
        micro_batch=replica.micro_batch,
        num_micro_batches=replica.num_micro_batches,
        memory_bytes=use._asdict(),
        capacity_bytes=capacity,
    )


def _utilisation(plan: PlanFile, ground: Ground, kinds: Mapping[str, int]) -> float | None:
    """As Chowdhery et al. 2022 count it: three forward passes' operations, nothing that is done twice."""
    speeds = dict(zip(ground.kinds, ground.speeds, strict=True))
    if not all(speeds[kind].peak_flops for kind in kinds):
        return None
    dtype = plan.strategy.execution.dtype
    peak = sum(count * speeds[kind].peak(dtype) for kind, count in kinds.items())
    return 3 * plan.workload.forward_flops * plan.strategy.global_batch / (plan.prediction.step_time_s * peak)


def _binding(stages: Sequence[StageAccount]) -> Iterator[str]:
    busiest = max(stages, key=lambda stage: stage.busy_s)
    step_s = sum(busiest.seconds.values())
    cause = max(busiest.seconds, key=lambda part: busiest.seconds[part])
    where = f"stage {busiest.number} ({devices_in_words(busiest.groups)})" if len(stages) > 1 else "every device"
    words = f"{TIME_WORDS[cause]} is {busiest.seconds[cause] / step_s:.0%} of the step"
    pace = f"{where} sets the pace, busy for {busiest.busy_s / step_s:.0%} of the step"
    yield f"{pace}; {words}"
    stage, group = max(
        ((stage, group) for stage in stages for group in stage.groups),
        key=lambda pair: pair[1].used_bytes / pair[1].capacity_bytes,
    )
    part = group.used_bytes / group.capacity_bytes
    told = f"{group.kind} of stage {stage.number}: {gib(group.used_bytes)} of {gib(group.capacity_bytes)} ({part:.0%})"
    if part > 1:
        yield f"memory does not suffice on {told}"
    elif part >= FULL:
        yield f"memory is nearly full on {told}"
    else:
        yield f"memory leaves room everywhere; the fullest is {told}"


def _rival(plan: PlanFile, one: Found) -> Rival:
    change = change_in_words(plan.strategy, one.strategy)
    return Rival(
        plan=f"the same with {change}" if change else strategy_in_words(plan.workload, one.strategy),
        step_s=one.prediction.step_time_s,
        why=why_slower(plan.prediction, one.prediction),
    )


def why_slower(best: Prediction, other: Prediction) -> str:
    """Where `other` loses what it loses: the parts of its slowest stage that are longer than those of the best."""
    lost_s = other.step_time_s - best.step_time_s
    ours, theirs = (_mean(one) for one in (best, other))
    longer = sorted(((theirs[part] - ours[part], part) for part in TIME_PARTS), reverse=True)
    causes = [f"{seconds(more)} more {TIME_WORDS[part]}" for more, part in longer[:2] if more > 0.2 * abs(lost_s)]
    if lost_s < SAME * best.step_time_s:
        return "as fast" if lost_s > -SAME * best.step_time_s else "faster, but worse in what was asked for"
    return f"{lost_s / best.step_time_s:.2%} slower{': ' if causes else ''}{' and '.join(causes)}"


def _mean(prediction: Prediction) -> dict[str, float]:
    """Seconds by part, in the mean over the stages."""
    stages = prediction.stages
    return {part: sum(stage.seconds[part] for stage in stages) / len(stages) for part in TIME_PARTS}
