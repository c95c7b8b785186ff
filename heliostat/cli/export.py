"""Weights for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from heliostat.cli.common import Json, print_json

app = typer.Typer()


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A committed checkpoint: a directory such as step-00000050.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="FILE.safetensors, or FILE.pt for a torch state dict.")
    ],
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Write the model of a checkpoint to one plain file."""
    from heliostat.train.export import export as write

    done = write(checkpoint, out)
    if as_json:
        print_json(done.model_dump())
        return
    typer.echo(f"{done.num_parameters:,} numbers in {done.num_tensors} tensors of step {done.step}, to {done.file}")
    for name, first in done.tied.items():
        typer.echo(f"  {name} is {first}")
