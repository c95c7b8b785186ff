"""What a run shows while it goes on: a line for each step that was skipped or finished, a bar for those that run."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from heliostat.experiment.events import Event, StepFailed, StepFinished, StepProgress, StepSkipped, StepStarted

SHOWN_REASONS = 3


class Display:
    """A context manager; bars appear only on a terminal, lines everywhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(quiet=quiet, highlight=False, stderr=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal or quiet,
        )
        self._tasks: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        """Say something about the run itself."""
        self._console.print(f"[dim]{text}[/dim]")

    def show(self, event: Event) -> None:
        """Show one event of the pipeline."""
        match event:
            case StepSkipped():
                self._line("[cyan]=[/cyan]", event.step, f"skipped: unchanged since {event.record.created}")
            case StepStarted():
                self._line("[yellow]>[/yellow]", event.step, f"runs: {shortened(event.reasons)}")
                self._bars.start()
                self._tasks[event.step] = self._bars.add_task(event.step, total=1, text="")
            case StepProgress():
                self._bars.update(
                    self._tasks[event.step], completed=event.done, total=max(event.total, 1), text=event.text
                )
            case StepFinished():
                self._end(event.step)
                self._line("[green]*[/green]", event.step, f"done in {event.record.wall_s:.1f} s")
            case StepFailed():
                self._end(event.step)
                self._line("[red]x[/red]", event.step, f"failed: {event.error.what}")

    def _line(self, mark: str, step: str, text: str) -> None:
        self._console.print(f"{mark} [bold]{step:<9}[/bold]", end="")
        self._console.print(text, markup=False)

    def _end(self, step: str) -> None:
        self._bars.remove_task(self._tasks.pop(step))
        if not self._tasks:
            self._bars.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def shortened(reasons: Sequence[str]) -> str:
    """The first reasons why a step runs; `--json` has all of them."""
    text = "; ".join(reasons[:SHOWN_REASONS])
    more = len(reasons) - SHOWN_REASONS
    return f"{text}; and {more} more" if more > 0 else text
