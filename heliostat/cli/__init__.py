"""The command line: it parses, calls and prints, and turns errors into exit codes.

One module for each group of commands. A group is a typer app; `app` here joins them.

0: done. 1: something failed, or is not healthy. 2: something to change before trying again. 130: interrupted.
"""

import sys
import traceback
from typing import Annotated

import typer

from heliostat.cli import cluster, experiment, export, plan, train
from heliostat.errors import HeliostatError

DEBUG = "--debug"
"""Understood anywhere on the line, because it is typed after a command has failed."""

app = typer.Typer(
    name="heliostat",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(experiment.app)
app.add_typer(train.app)
app.add_typer(export.app)
app.add_typer(cluster.app, name="cluster")
app.add_typer(plan.app, name="plan")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: FBT002
) -> None:
    """One experiment file in: data, plan, training, search, registry and an HTTP endpoint out."""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run one command and give its exit code; errors are printed to stderr, with a traceback only for --debug."""
    try:
        app([argument for argument in arguments if argument != DEBUG], prog_name="heliostat")
    except SystemExit as ended:
        return int(ended.code or 0)
    except HeliostatError as error:
        if DEBUG in arguments:
            traceback.print_exc()
        typer.secho(f"error: {error}", err=True, fg="red")
        return error.exit_code
    raise AssertionError("typer ends every command by SystemExit")
