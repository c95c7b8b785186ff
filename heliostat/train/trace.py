"""A trace of some steps: what every rank does when, as a file for Perfetto (https://ui.perfetto.dev) and Chrome.

The passes of a step are named in it as the planner's schedule names them, `F chunk 0 micro-batch 3`, and so are its
other parts, `sync` and `update`. Marks cost nothing while no trace is made.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from heliostat.placement.schedule import Step

NUM_WARM_UP = 1
"""Steps before the first that is traced: it also sets up memory and connections."""


def folder_of(directory: str | Path) -> Path:
    """Where the traces of the job in `directory` are."""
    return Path(directory) / "trace"


def file_of(directory: str | Path, rank: int) -> Path:
    """The trace of one rank."""
    return folder_of(directory) / f"rank-{rank}.json"


def mark(name: str) -> AbstractContextManager[object]:
    """Names in the trace what runs in a `with` block."""
    return record_function(name) if torch._C._autograd._profiler_enabled() else nullcontext()  # noqa: SLF001


def name_of(step: Step) -> str:
    """What a pass is called."""
    kind, chunk, number = step
    return f"{kind} chunk {chunk} micro-batch {number}"


class Tracer:
    """Traces steps of one rank; a context manager around the loop.

    Args:
        path: the file to write.
        num_steps: how many steps; none if 0.
    """

    def __init__(self, path: Path, num_steps: int) -> None:
        self._path, self._num_steps = path, num_steps
        self._done = 0
        self._profile: profile | None = None

    def before_step(self) -> None:
        """A step begins."""
        if self._num_steps and self._done == NUM_WARM_UP:
            activities = [ProfilerActivity.CPU]
            activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=activities, acc_events=True)
            self._profile.start()

    def after_step(self) -> None:
        """A step has ended."""
        self._done += 1
        if self._done == NUM_WARM_UP + self._num_steps:
            self._write()

    def _write(self) -> None:
        if self._profile is None:
            return
        self._profile.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._path))
        self._profile = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
