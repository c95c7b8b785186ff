"""The cluster: look at it, examine it, measure it, pretend to have one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from heliostat.cli.common import DEFAULT_STORE, Json, Store, print_json
from heliostat.errors import UserError

if TYPE_CHECKING:
    from heliostat.cluster.doctor.finding import Finding
    from heliostat.experiment.cluster_source import Look

app = typer.Typer(no_args_is_help=True, help="What there is, how it is connected, and whether it is well.")

Address = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster, instead of what the store has up or this machine.")
]
CpusPerDevice = Annotated[
    int, typer.Option("--cpus-per-device", min=1, help="Cores of a device on a node without GPUs.")
]


@app.command()
def show(
    spec: Annotated[Path | None, typer.Argument(help="A cluster file, instead of a live cluster.")] = None,
    address: Address = None,
    store: Store = DEFAULT_STORE,
    cpus_per_device: CpusPerDevice = 1,
    as_json: Json = False,  # noqa: FBT002
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print it as a cluster file.")] = False,  # noqa: FBT002
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it into a PNG file.")] = None,
) -> None:
    """Show nodes, devices, and how they are joined; without SPEC what is up for the store, else this machine."""
    from heliostat.experiment.cluster_source import look

    if as_json and as_yaml:
        raise UserError("give --json or --yaml, not both")
    found = look(spec, address=address, store=store, cpus_per_device=cpus_per_device)
    if png is not None:
        from heliostat.cluster.view.picture import draw

        draw(found.survey.cluster, png, lost=found.survey.lost)
    if as_json:
        print_json(_as_json(found))
    elif as_yaml:
        from heliostat.cluster.spec_file import to_yaml

        typer.echo(to_yaml(found.survey.cluster.model_dump(mode="json")), nl=False)
    else:
        _print_page(found)
        if png is not None:
            typer.echo(f"drawn into {png}")


@app.command()
def doctor(
    spec: Annotated[Path | None, typer.Argument(help="A cluster file that says what should be there.")] = None,
    address: Address = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Say what is wrong with a live cluster. Exit code 0: healthy, 1: not."""
    from heliostat.cluster import spec_file
    from heliostat.cluster.doctor.examine import examine, is_healthy
    from heliostat.experiment.cluster_source import look

    expected = spec_file.load(spec) if spec is not None else None
    # without the fabric: whether labels fit it is for the doctor to tell
    known = expected.model_copy(update={"fabric": None}) if expected is not None else None
    found = look(None, address=address, store=store, known=known)
    findings = examine(found.survey, expected)
    if as_json:
        told = {"source": found.source, "origin": found.survey.cluster.origin, "healthy": is_healthy(findings)}
        print_json({**told, "findings": [one.model_dump() for one in findings]})
    else:
        _print_findings(found, findings)
    raise typer.Exit(0 if is_healthy(findings) else 1)


@app.command()
def calibrate(
    address: Address = None,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write it; cluster.yaml in the store.")
    ] = None,
    cpus_per_device: CpusPerDevice = 1,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Measure devices and links, and write the cluster down with what was measured."""
    from heliostat.experiment.cluster_source import measure

    with _progress(quiet=as_json) as progress:
        found, path = measure(address, store, out, cpus_per_device=cpus_per_device, progress=progress)
    if as_json:
        print_json(_as_json(found))
    else:
        _print_page(found)
        typer.echo(f"written to {path}")


@app.command()
def emulate(
    spec: Annotated[Path, typer.Argument(help="A cluster file.", show_default=False)],
    store: Store = DEFAULT_STORE,
    islands: Annotated[bool, typer.Option("--islands", help="One Ray node for each NVLink island.")] = False,  # noqa: FBT002
    slowdown: Annotated[
        list[str],
        typer.Option("--slowdown", metavar="TYPE=FACTOR", help="How many times as slow as the fastest type it is."),
    ] = [],  # noqa: B006  # typer reads the default, nobody writes to it
) -> None:
    """Start Ray nodes on this machine that pretend to be the cluster of SPEC; `heliostat down` stops them."""
    from heliostat.cluster import spec_file
    from heliostat.experiment import cluster_source

    factors = dict(map(_factor, slowdown))
    cluster = spec_file.load(spec)
    ray = cluster_source.emulate(cluster, store, by_island=islands, slowdowns=factors)
    typer.echo(f"EMULATED: {len(ray.raylets)} nodes with {cluster.num_devices} devices of {spec}, on this machine")
    typer.echo(f"  address    {ray.address}  (token in {ray.token_path})")
    typer.echo(f"  look       heliostat cluster show --store {store}")
    typer.echo(f"  stop       heliostat down --store {store}")


def _factor(text: str) -> tuple[str, float]:
    name, _, factor = text.partition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise UserError("a slow-down is written TYPE=FACTOR, such as T4=5", where="--slowdown", got=text) from None


def _as_json(found: "Look") -> dict[str, Any]:
    from heliostat.cluster.view.overview import Overview

    overview = Overview.of(found.survey, found.source).model_dump(mode="json")
    return {**overview, "cluster": found.survey.cluster.model_dump(mode="json")}


def _print_page(found: "Look") -> None:
    from heliostat.cluster.view.overview import Overview
    from heliostat.cluster.view.table import page

    overview = Overview.of(found.survey, found.source)
    Console(highlight=False).print(page(overview, found.survey.cluster))


def _print_findings(found: "Look", findings: Sequence["Finding"]) -> None:
    from heliostat.cluster.view.diagnosis import diagnosis

    Console(highlight=False).print(diagnosis(found.survey.cluster, found.source, findings))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, a line for each step elsewhere."""
    console = Console(highlight=False, quiet=quiet, stderr=True)
    bar = Progress(
        SpinnerColumn(),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def show_progress(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal:
                console.print(f"{done}/{total} {text}", markup=False)

        yield show_progress
