"""A plan that was made elsewhere, held against the model and the devices it is to run on. Pure."""

from collections import Counter
from collections.abc import Iterator

from heliostat.cluster.spec import ClusterSpec
from heliostat.document import dotted
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.plan_file import PlanFile, contradictions
from heliostat.placement.prediction import predict
from heliostat.placement.repair import repair, stages_too_full
from heliostat.placement.strategy import Strategy
from heliostat.placement.view.words import change_in_words, strategy_in_words
from heliostat.placement.workload import WorkloadProfile


def given(
    found: PlanFile, workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints, *, where: str
) -> ParallelPlan:
    """The plan in `found`, predicted anew.

    Args:
        found: the plan file; of it only the strategy is taken, run as `wanted.execution` says.
        workload: the model that is to be trained.
        cluster: the devices there are.
        wanted: the global batch, and in its pins what the program can run and what the model says of its blocks.
        where: the file, for messages.

    Raises:
        PlanError: it is for another model, another batch, other or more devices; it cannot be run; it does not fit.
        UserError: nothing tells how devices are joined.
    """
    strategy = found.strategy.model_copy(update={"execution": wanted.execution})
    _check_model(found.workload, workload, where)
    if strategy.global_batch != wanted.global_batch:
        raise PlanError(
            "the plan is for another global batch",
            where=where,
            got=f"{strategy.global_batch} samples in the plan, train.global_batch is {wanted.global_batch}",
            next_step="change one of them",
        )
    _check_devices(strategy, cluster, where)
    problems = [
        *(f"{dotted(keys)} {message}" for keys, message in contradictions(workload, strategy)),
        *_unrunnable(strategy, wanted.pins),
    ]
    if problems:
        raise PlanError("the plan cannot be run", where=where, got="; ".join(problems), next_step="correct the file")
    plan = ParallelPlan(
        workload=workload.name,
        cluster_origin=cluster.origin,
        strategy=strategy,
        prediction=predict(workload, cluster, strategy),
        reason=f"{strategy_in_words(workload, strategy)}: as {where} says",
    )
    _check_memory(plan, workload, cluster, wanted.pins, where)
    return plan


def _check_model(planned: WorkloadProfile, workload: WorkloadProfile, where: str) -> None:
    facts = [(one.num_blocks, one.num_parameters) for one in (planned, workload)]
    if facts[0] != facts[1]:
        words = [f"{blocks:,} blocks and {parameters:,} parameters" for blocks, parameters in facts]
        raise PlanError(
            "the plan is for another model",
            where=where,
            got=f"{planned.name} with {words[0]}; the model is {workload.name} with {words[1]}",
            next_step="leave plan.file out, and the planner makes one for this model",
        )


def _check_devices(strategy: Strategy, cluster: ClusterSpec, where: str) -> None:
    there = cluster.count_by_kind()
    needed = Counter[str]()
    for stage in strategy.stages:
        for replica in stage.replicas:
            needed[replica.device_kind] += stage.ranks_per_replica
    if any(count > there.get(kind, 0) for kind, count in needed.items()):
        raise PlanError(
            f"the plan needs {strategy.num_ranks} workers, {sum(there.values())} are there"
            if strategy.num_ranks > sum(there.values())
            else "the plan needs other devices than are there",
            where=where,
            got=f"needs {_counted(needed)}; there are {_counted(there)}",
            next_step="add devices, correct the kinds in the file, or leave plan.file out",
        )


def _check_memory(plan: ParallelPlan, workload: WorkloadProfile, cluster: ClusterSpec, pins: Pins, where: str) -> None:
    full = stages_too_full(cluster, plan.strategy, plan.prediction)
    if not full:
        return
    smaller = repair(workload, cluster, plan.strategy)
    can_run = smaller is not None and not list(_unrunnable(smaller.strategy, pins))
    change = change_in_words(plan.strategy, smaller.strategy) if smaller and can_run else None
    raise PlanError(
        f"the plan does not fit into the memory of stage {', '.join(map(str, full))}",
        where=where,
        got=f"it needs {max(plan.prediction.memory_bytes) / (1 << 30):.2f} GiB on the fullest device",
        next_step=f"smallest change that fits: {change}" if change else "use more devices",
    )


def _counted(devices: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(devices.items())) or "none"


def _unrunnable(strategy: Strategy, pins: Pins) -> Iterator[str]:
    """What the program does not do, or the model's own annotations say otherwise."""
    for number, stage in enumerate(strategy.stages):
        for name in ("offload", "sequence_parallel"):
            if getattr(stage, name) and getattr(pins, name) is False:
                yield f"stages.{number}.{name} is not run"
        if stage.context_parallel > 1:
            yield f"stages.{number}.context_parallel is not run"
        for part in pins.parts:
            if part.first_block < stage.end_block and stage.first_block < part.end_block:
                kinds = {replica.device_kind for replica in stage.replicas}
                if not (part.takes_tensor(stage.tensor_parallel) and all(map(part.takes_kind, kinds))):
                    yield f"stages.{number} is not what {part.source} asks for"
    begins = tuple(stage.first_block for stage in strategy.stages[1:])
    if pins.cuts is not None and begins != pins.cuts:
        yield f"stages begin at {', '.join(map(str, begins)) or 'no block'}, not as the model's annotations say"
