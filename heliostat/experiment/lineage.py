"""The walk back from a model: the run that trained it and the runs around that one, its data, code, plan, figures."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.tree import Tree

from heliostat.errors import UserError
from heliostat.experiment.tracking import PARENT
from heliostat.experiment.tracking_store import local_file
from heliostat.serve.mlflow_client import connect
from heliostat.serve.registry import ModelVersion, resolve
from heliostat.values import Frozen

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RunFacts(Frozen):
    """What MLflow knows about a run."""

    run_id: str
    name: str
    status: str
    started: datetime
    params: dict[str, str]
    metrics: dict[str, float]
    """The last value of each."""


class Lineage(Frozen):
    """Where a model version came from."""

    tracking_uri: str
    model: ModelVersion
    runs: tuple[RunFacts, ...]
    """From the run that trained it up to the run of the whole experiment."""


def lineage(tracking_uri: str, reference: str) -> Lineage:
    """The walk back from the model version that `reference` names (`model`, `model@alias`, `model/3`).

    Raises:
        UserError: there is no such model, or nothing was ever tracked here.
    """
    file = local_file(tracking_uri)
    if file is not None and not file.exists():  # MLflow would make an empty store of it
        raise UserError(
            "no model has been registered here",
            where=str(file),
            causes=("the store is another directory's",),
            next_step="heliostat run, or name the store with --store",
        )
    model = resolve(tracking_uri, reference)
    return Lineage(tracking_uri=tracking_uri, model=model, runs=tuple(_upward(connect(tracking_uri), model.run_id)))


def render(found: Lineage) -> Tree:
    """The walk as a tree for the terminal."""
    model, provenance = found.model, found.model.provenance
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    tree = Tree(f"[bold]{model.id}[/]{aliases}  in {found.tracking_uri}")
    _add_values(tree, "metrics", model.metrics)
    tree.add(f"data version  {provenance.data_version}")
    tree.add(f"plan          {escape(provenance.plan)}  [dim]{provenance.plan_digest}[/]")
    tree.add(f"code          {provenance.code}")
    tree.add(f"environment   {provenance.environment}")
    branch = tree
    for run in found.runs:
        relation = "trained by" if branch is tree else "part of"
        name = f"[bold]{escape(run.name)}[/]"
        branch = branch.add(f"{relation} run {name}  {run.run_id}  {run.status}, {run.started:%F %T} UTC")
        _add_values(branch, "params", run.params)
        _add_values(branch, "metrics", run.metrics)
    return tree


def _upward(client: "MlflowClient", run_id: str | None) -> list[RunFacts]:
    runs = []
    while run_id is not None:
        run = client.get_run(run_id)
        runs.append(_facts(run))
        run_id = run.data.tags.get(PARENT)
    return runs


def _facts(run: Any) -> RunFacts:
    return RunFacts(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        params=dict(sorted(run.data.params.items())),
        metrics=dict(sorted(run.data.metrics.items())),
    )


def _add_values(tree: Tree, title: str, values: Mapping[str, object]) -> None:
    if values:
        branch = tree.add(title)
        for name, value in values.items():
            branch.add(escape(f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}"))
