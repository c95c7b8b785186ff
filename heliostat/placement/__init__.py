"""What goes where: workload and cluster in, a parallel plan and exact devices out.

    from heliostat import placement

    workload = placement.workloads.transformer(placement.workloads.Transformer(...))
    best = placement.plan(workload, cluster, placement.Constraints(global_batch=512))
    placement.predict(workload, cluster, best.strategy).step_time_s

These names are the package's public face; they are loaded when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.placement import workloads
    from heliostat.placement.constraints import Constraints, Pins
    from heliostat.placement.parallel_plan import ParallelPlan
    from heliostat.placement.planner import plan
    from heliostat.placement.prediction import Prediction, predict
    from heliostat.placement.search.search import enumerate_plans
    from heliostat.placement.strategy import Strategy
    from heliostat.placement.workload import WorkloadProfile

_HOMES = {
    "Constraints": "constraints",
    "ParallelPlan": "parallel_plan",
    "Pins": "constraints",
    "Prediction": "prediction",
    "Strategy": "strategy",
    "WorkloadProfile": "workload",
    "enumerate_plans": "search.search",
    "plan": "planner",
    "predict": "prediction",
}
__all__ = [
    "Constraints",
    "ParallelPlan",
    "Pins",
    "Prediction",
    "Strategy",
    "WorkloadProfile",
    "enumerate_plans",
    "plan",
    "predict",
    "workloads",
]


def __getattr__(name: str) -> Any:
    if name == "workloads":
        return import_module(f"{__name__}.workloads")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
