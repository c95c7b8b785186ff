"""Training alone: an experiment's first steps, up to a trained model or to a plan that was checked."""

from typing import TYPE_CHECKING, Annotated

import typer

from heliostat.cli.common import Json, print_json
from heliostat.cli.experiment import Config, Overrides

if TYPE_CHECKING:
    from heliostat.experiment.summary import Summary

TRACED_STEPS = 3
"""Of --trace."""

app = typer.Typer()


@app.command()
def train(
    config: Config,
    overrides: Overrides = [],  # noqa: B006  # typer reads the default, nobody writes to it
    verify: Annotated[bool, typer.Option("--verify", help="Check the plan on its workers and train nothing.")] = False,  # noqa: FBT002
    trace: Annotated[bool, typer.Option("--trace", help="Write a trace of some steps of every rank.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run an experiment up to its step `train`. Exit code 1: the plan was not verified.

    Traces open at https://ui.perfetto.dev.
    """
    from heliostat.experiment.run import run_experiment

    passed = True

    def report(summary: "Summary") -> None:
        nonlocal passed
        passed = summary.passed
        if as_json:
            print_json(summary.as_json())
        else:
            summary.show()

    traced = [f"train.trace_steps={TRACED_STEPS}"] if trace else []
    run_experiment(
        config, [*overrides, *traced], keep=False, quiet=as_json, report=report, goal="verify" if verify else "train"
    )
    raise typer.Exit(0 if passed else 1)
