"""The plan: find the best one, check one that was edited, fit the constants that plans are predicted with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from heliostat.cli.common import Json
from heliostat.errors import PlanError, UserError

if TYPE_CHECKING:
    from heliostat.cluster.spec import ClusterSpec
    from heliostat.placement.plan_file import PlanFile
    from heliostat.placement.workload import WorkloadProfile

FIND = "find"
PAGE_WIDTH = 110
"""Columns of the tables where no terminal says how many there are."""


class _Group(TyperGroup):
    """`plan WORKLOAD` is `plan find WORKLOAD`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the usual command before arguments that do not begin with a command."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = [FIND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group, no_args_is_help=True, help="The best parallel strategy for a model on a cluster: `plan WORKLOAD`."
)

Spec = Annotated[
    Path | None, typer.Option("--cluster", metavar="SPEC", help="A cluster file, instead of the one that is named.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")]
Svg = Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write the pictures alone.")]


@app.command(FIND)
def find(
    workload: Annotated[Path, typer.Argument(help="A workload file, or an experiment.", show_default=False)],
    cluster: Spec = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="fastest, cheapest or fewest: instead of the file's.")
    ] = None,
    budget_s: Annotated[
        float | None, typer.Option("--budget-s", metavar="N", help="Seconds after which the best so far is taken.")
    ] = None,
    overrides: Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Replace a value of the file.")] = [],  # noqa: B006  # typer reads the default, nobody writes to it
    as_json: Json = False,  # noqa: FBT002
    html: Html = None,
    svg: Svg = None,
) -> None:
    """Find the best plan for WORKLOAD; `plan WORKLOAD` does the same.

    Of an experiment file the plan that its last run made is shown.
    """
    from heliostat.experiment.planned import is_experiment, planned

    if is_experiment(workload):
        _show(planned(workload, overrides), as_json, html, svg)
        return
    from heliostat.placement import workload_file
    from heliostat.placement.plan_file import PlanFile
    from heliostat.placement.search.search import search

    asked = {"objective": objective, "budget_s": budget_s}
    given = [f"{name}={value}" for name, value in asked.items() if value is not None]
    job = workload_file.load(workload, [*overrides, *given])
    path = cluster or job.cluster
    if path is None:
        raise UserError(
            "nothing says which cluster to plan for",
            where=str(workload),
            next_step="give --cluster SPEC; `heliostat cluster show --yaml > SPEC` writes down the one that is up",
        )
    spec = _load_cluster(path)
    profile = _measured(job.workload, job.timings, spec) if job.timings else job.workload
    _show(PlanFile.of(search(profile, spec, job.wanted), profile, spec, job.wanted), as_json, html, svg)


@app.command()
def check(
    plan: Annotated[Path, typer.Argument(help="A plan file, as --json prints it, edited or not.", show_default=False)],
    cluster: Spec = None,
    as_json: Json = False,  # noqa: FBT002
    html: Html = None,
    svg: Svg = None,
) -> None:
    """Predict time and memory of a plan file anew. Exit code 0: it can run, 1: it cannot."""
    from heliostat.placement import plan_file
    from heliostat.placement.prediction import predict

    written = plan_file.load(plan)
    spec = _load_cluster(cluster) if cluster is not None else written.cluster
    try:
        prediction = predict(written.workload, spec, written.strategy)
    except PlanError as error:
        typer.secho(f"cannot run: {error}", err=True, fg="red")
        raise typer.Exit(1) from None
    fresh = written.model_copy(update={"cluster": spec, "prediction": prediction})
    fits = _show(fresh, as_json, html, svg)
    if not as_json:
        before_s, now_s = written.prediction.step_time_s, prediction.step_time_s
        change = "as the file says" if abs(now_s / before_s - 1) < 1e-3 else f"the file says {before_s:.4g} s"
        typer.echo(f"{'can run' if fits else 'CANNOT RUN'}: {now_s:.4g} s a step, {change}")
        if not fits:
            typer.echo(_what_would_fit(fresh))
    raise typer.Exit(0 if fits else 1)


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="A folder with CSV files of measured runs.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write the constants; else they are printed.")
    ] = None,
) -> None:
    """Fit the constants of the cost model to measured runs, and say how well they foretell others."""
    from heliostat.placement.fit import as_yaml, fit, is_fitted_on
    from heliostat.placement.records import read_runs
    from heliostat.placement.view.fit_table import errors_table

    runs = read_runs(data)
    typer.echo(f"{len(runs):,} measured runs; fitting a thousand takes minutes", err=True)
    constants = fit([run for run in runs if is_fitted_on(run.shape)])
    _write(out, as_yaml(constants))
    if out is None:
        typer.echo(as_yaml(constants), nl=False)
    Console(highlight=False, stderr=True).print(errors_table(runs, constants))
    if out is not None:
        typer.echo(f"written to {out}")


def _measured(workload: "WorkloadProfile", path: Path, cluster: "ClusterSpec") -> "WorkloadProfile":
    from heliostat.placement.timings_file import with_timings

    found = with_timings(workload, path, cluster.catalogue)
    measured = {timing.device_kind for block in found.blocks for timing in block.timings}
    there = {device.type for node in cluster.nodes for device in node.devices}
    if not measured & there:
        raise UserError(
            "the block times are of none of the cluster's devices",
            where=str(path),
            got=f"times of {', '.join(sorted(measured))}; the cluster has {', '.join(sorted(there))}",
            next_step="correct the names in the column `gpu`, or leave `timings` out",
        )
    return found


def _what_would_fit(plan: "PlanFile") -> str:
    from heliostat.placement.repair import repair
    from heliostat.placement.view.words import change_in_words

    found = repair(plan.workload, plan.cluster, plan.strategy)
    if found is None:
        return "no one or two changes of recomputation, ZeRO, offload or micro-batch make it fit: use more devices"
    change = change_in_words(plan.strategy, found.strategy)
    return f"the smallest change that fits: {change} ({found.prediction.step_time_s:.4g} s a step)"


def _load_cluster(path: Path) -> "ClusterSpec":
    from heliostat.cluster import spec_file

    return spec_file.load(path)


def _show(plan: "PlanFile", as_json: bool, html: Path | None, svg: Path | None) -> bool:  # noqa: FBT001
    """Print the plan and write its pictures; whether every device has the memory."""
    from heliostat.placement.plan_file import to_json
    from heliostat.placement.view.account import account_of

    account, step = account_of(plan)
    if html is not None or svg is not None:
        from heliostat.placement.view import page

        _write(html, page.html(account, step))
        _write(svg, page.overview_svg(account, step))
    if as_json:
        typer.echo(to_json(plan))
    else:
        from heliostat.placement.view import table

        console = Console(highlight=False)
        console.width = console.width if console.is_terminal else PAGE_WIDTH
        console.print(table.page(account))
        for path in filter(None, (html, svg)):
            typer.echo(f"drawn into {path}")
    return account.fits


def _write(path: Path | None, text: str) -> None:
    from heliostat.files import write_whole

    if path is None:
        return
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError("the file cannot be written", where=str(path), got=str(error)) from error
