"""What a pipeline tells whoever watches it."""

import json
from dataclasses import dataclass
from pathlib import Path

from heliostat.errors import HeliostatError
from heliostat.experiment.records import Record


@dataclass(frozen=True, kw_only=True)
class StepSkipped:
    """Nothing changed: the step's earlier result stands."""

    step: str
    record: Record


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step runs, for these reasons."""

    step: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """A running step has `done` of `total`."""

    step: str
    done: float
    total: float
    text: str


@dataclass(frozen=True, kw_only=True)
class StepFinished:
    """A step has run, and its record is saved."""

    step: str
    record: Record


@dataclass(frozen=True, kw_only=True)
class StepFailed:
    """A step has raised; what depends on it will not run."""

    step: str
    error: HeliostatError


Event = StepSkipped | StepStarted | StepProgress | StepFinished | StepFailed


class ProgressReader:
    """Reads the progress of one step; what an earlier attempt reported is passed over."""

    def __init__(self, step: str, events: Path) -> None:
        self._step = step
        self._events = events
        self._offset = events.stat().st_size if events.exists() else 0

    def read(self) -> list[StepProgress]:
        """What was reported since the last time."""
        if not self._events.exists():
            return []
        with self._events.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        # a line that is still being written stays for the next time
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [StepProgress(step=self._step, **json.loads(line)) for line in whole.splitlines()]
