"""Experiments: run one, check it, and look at what it left."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heliostat.cli.common import DEFAULT_STORE, Json, Store, print_json

if TYPE_CHECKING:
    from heliostat.experiment.summary import Summary

app = typer.Typer()

Config = Annotated[Path, typer.Argument(help="The experiment file.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="Replace one value of the file; may be given many times.")
]


@app.command()
def run(
    config: Config,
    overrides: Overrides = [],  # noqa: B006  # typer reads the default, nobody writes to it
    keep: Annotated[bool, typer.Option("--keep", help="Leave Ray, MLflow and the endpoint up in the end.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run an experiment: every step whose code, configuration or data changed."""
    from heliostat.experiment.run import run_experiment

    def report(summary: "Summary") -> None:
        if as_json:
            print_json(summary.as_json())
        else:
            summary.show()

    run_experiment(config, overrides, keep=keep, quiet=as_json, report=report)


@app.command()
def validate(config: Config, overrides: Overrides = []) -> None:  # noqa: B006
    """Check an experiment file and report every mistake in it."""
    from heliostat.experiment.config import load_experiment

    experiment = load_experiment(config, overrides)
    typer.echo(f"{config}: experiment {experiment.config.name!r} is valid")


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from heliostat.experiment.config import json_schema

    print_json(json_schema())


@app.command()
def status(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:  # noqa: FBT002
    """List what is up for a store."""
    from heliostat.experiment.services import Session

    session = Session.load(store)
    if as_json:
        print_json(session.model_dump(mode="json"))
    else:
        typer.echo(session.describe())


@app.command()
def down(store: Store = DEFAULT_STORE) -> None:
    """Stop Ray, MLflow and the endpoint that a run left up."""
    from heliostat.experiment.services import stop

    session = stop(store)
    typer.echo("nothing was up" if session.empty else f"stopped:\n{session.describe()}")


@app.command()
def lineage(
    model: Annotated[str, typer.Argument(help="MODEL, MODEL@ALIAS or MODEL/VERSION.")],
    store: Store = DEFAULT_STORE,
    tracking_uri: Annotated[str | None, typer.Option(help="An MLflow server instead of the store's own.")] = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Walk from a model back to its data, code, plan, parameters and metrics."""
    from heliostat.experiment.lineage import lineage as walk
    from heliostat.experiment.lineage import render
    from heliostat.experiment.tracking_store import local_uri

    found = walk(tracking_uri or local_uri(store), model)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        from rich.console import Console

        Console().print(render(found))
