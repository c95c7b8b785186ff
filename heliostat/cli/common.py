"""What commands have in common: options, and how they print."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Store = Annotated[Path, typer.Option("--store", help="The store directory.")]
DEFAULT_STORE = Path(".heliostat")


def print_json(value: Any) -> None:
    """Print `value` for scripts."""
    typer.echo(json.dumps(value, indent=2))
