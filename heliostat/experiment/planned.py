"""The plan of an experiment as its last run made it, with all it was made from: for `heliostat plan CONFIG`."""

from collections.abc import Sequence
from pathlib import Path

from heliostat.cluster.spec import ClusterSpec
from heliostat.document import read
from heliostat.errors import UserError
from heliostat.experiment.config import load_experiment
from heliostat.experiment.records import Store
from heliostat.placement.constraints import Constraints
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.plan_file import PlanFile
from heliostat.placement.search.outcome import Chosen
from heliostat.placement.workload import WorkloadProfile

STEP = "plan"


def is_experiment(path: Path) -> bool:
    """Whether `path` is an experiment file, which says how to train, and not a workload file."""
    data = read(path).data
    return "train" in data and "model" not in data


def planned(path: Path, overrides: Sequence[str] = ()) -> PlanFile:
    """What the step `plan` of the experiment in `path` made last.

    Raises:
        ConfigError: the file.
        UserError: that step has not run yet.
    """
    config = load_experiment(path, overrides).config
    record = Store(config.store.absolute()).latest(config.name, STEP)
    if record is None:
        raise UserError(
            f"experiment {config.name} has no plan yet",
            where=str(config.store),
            causes=("its model and devices are measured by its step `plan`, which has not run in this store",),
            next_step=f"heliostat run {path}",
        )
    outputs = record.result.outputs
    plan = ParallelPlan.model_validate(outputs["plan"])
    return PlanFile(
        wanted=Constraints.model_validate(outputs["wanted"]),
        **{name: getattr(plan, name) for name in Chosen.model_fields},
        cluster=ClusterSpec.model_validate(outputs["cluster"]),
        workload=WorkloadProfile.model_validate(outputs["workload"]),
    )
