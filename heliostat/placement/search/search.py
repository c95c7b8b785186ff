"""The planner's one question and its answer; and all plans that were looked at, in order. Pure."""

from collections.abc import Iterator

from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.search.check import check
from heliostat.placement.search.distinct import distinct
from heliostat.placement.search.engine import Search
from heliostat.placement.search.infeasible import explain
from heliostat.placement.search.judge import Verdict
from heliostat.placement.search.outcome import Found, Outcome
from heliostat.placement.workload import WorkloadProfile


def search(
    workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints, constants: Efficiencies | None = None
) -> Outcome:
    """The best plan for `workload` on the devices of `cluster`, and what came near it.

    The answer depends on nothing but the arguments, unless `wanted.budget_s` cuts the search short; it then says so.

    Raises:
        PlanError: nothing fits, pinned parts contradict, or no plan is as fast as wanted; says what would help.
        UserError: nothing tells how devices are joined, or a device type is not known.
    """
    one, ranked = _searched(workload, cluster, wanted, constants)
    best, *rest = map(one.found, distinct(ranked, wanted.num_runners_up + 1))
    return Outcome(
        best=best,
        runners_up=tuple(rest),
        refused=one.refused,
        num_candidates=len(one.judge.verdicts),
        cut_by_budget=one.cut_by_budget,
    )


def enumerate_plans(
    workload: WorkloadProfile,
    cluster: ClusterSpec,
    wanted: Constraints,
    limit: int,
    constants: Efficiencies | None = None,
) -> Iterator[Found]:
    """Distinct plans that a search judged and that fit, the best first.

    The first is that of `search`. The others are what the search came by on the way to it: many of the good plans, not
    each and every one. Two of them differ in cuts, devices, degrees or schedule.

    Args:
        workload: what is run.
        cluster: where.
        wanted: the goal and what is pinned.
        limit: how many at most.
        constants: of the cost model; those that come with Heliostat if None.

    Raises:
        PlanError: as `search`, when the first plan is asked for.
        UserError: likewise.
    """
    one, ranked = _searched(workload, cluster, wanted, constants)
    yield from map(one.found, distinct(ranked, limit))


def _searched(
    workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints, constants: Efficiencies | None
) -> tuple[Search, list[Verdict]]:
    check(workload, cluster, wanted)
    one = Search(workload, cluster, wanted, constants)
    ranked = one.run()
    if not ranked:
        raise explain(workload, cluster, one.space, constants)
    if wanted.is_late(ranked[0].step_s):
        one, ranked = _fastest_in_time(workload, cluster, wanted, constants)
    return one, ranked


def _fastest_in_time(
    workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints, constants: Efficiencies | None
) -> tuple[Search, list[Verdict]]:
    """The fastest plan, where those with few devices are too slow; refuses if it is too slow as well."""
    one = Search(workload, cluster, wanted.model_copy(update={"objective": "fastest"}), constants)
    ranked = one.run()
    step_s = ranked[0].step_s
    if wanted.is_late(step_s):
        raise PlanError(
            f"no plan takes {wanted.target_s} s per step or less",
            got=f"{step_s:.4g} s at best, with {ranked[0].num_devices} devices",
            next_step="raise `target_s`, lower the global batch, or add devices",
        )
    again = Search(workload, cluster, wanted, constants)
    for verdict in ranked:
        again.judge.try_(verdict.draft)
    return again, again.run()
