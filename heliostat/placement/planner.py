"""The planner: workload and cluster in, the best parallel plan out."""

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.constraints import Constraints
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.search.search import search
from heliostat.placement.view.words import TIME_WORDS, seconds, strategy_in_words
from heliostat.placement.workload import WorkloadProfile


def plan(
    workload: WorkloadProfile, cluster: ClusterSpec, constraints: Constraints, constants: Efficiencies | None = None
) -> ParallelPlan:
    """The best plan for `workload` on the devices of `cluster`.

    The same arguments give the same plan, unless `constraints.budget_s` cuts the search short; the plan then says so.

    Raises:
        PlanError: nothing fits, pinned parts contradict, or no plan is as fast as wanted; says what would help.
        UserError: nothing tells how devices are joined or how fast they are.
    """
    outcome = search(workload, cluster, constraints, constants)
    return ParallelPlan(
        workload=workload.name,
        cluster_origin=cluster.origin,
        reason=_reason(workload, outcome),
        **ParallelPlan.fields_of(outcome),
    )


def _reason(workload: WorkloadProfile, outcome: Outcome) -> str:
    best = outcome.best
    parts = best.prediction.stages[0].seconds.keys()
    total = {part: sum(stage.seconds[part] for stage in best.prediction.stages) for part in parts}
    bound = TIME_WORDS[max(total, key=lambda part: total[part])]
    split, step = strategy_in_words(workload, best.strategy), seconds(best.prediction.step_time_s)
    text = f"{split}: {step} a step, mostly {bound}"
    if outcome.runners_up:
        rival = outcome.runners_up[0]
        text += (
            f"; the runner-up, {strategy_in_words(workload, rival.strategy)}, takes "
            f"{seconds(rival.prediction.step_time_s)}"
        )
    return text
