"""The platform's own channel from a training run to whoever watches it: one append-only JSONL file per rank.

`ray.train.report` costs up to two seconds a step (docs/decisions.md); a line in a file costs microseconds. Lines are
flushed about twice a second, and a reader takes only lines that are whole, so a file can be read while it is written
and after its writer was killed.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from heliostat.values import Frozen

FLUSH_EVERY_S = 0.5


class AttemptRecord(Frozen):
    """A rank has started, or started again after a failure."""

    kind: Literal["attempt"] = "attempt"
    rank: NonNegativeInt
    world_size: int
    pid: int
    step: int
    """Steps already done: 0, or the step of the checkpoint it goes on from."""
    total_steps: int
    time: float


class StepRecord(Frozen):
    """One training step."""

    kind: Literal["step"] = "step"
    step: int
    """Steps done, this one included."""
    loss: float
    """Mean over the global batch, before the update."""
    gradient_norm: float
    """Of all gradients together, before clipping."""
    num_elements: float
    """What the loss counted over the global batch: rows, or tokens."""
    passes_s: float
    """Forward and backward on this rank, waiting for other stages included."""
    wait_s: float
    """Of those, waiting for other stages."""
    sync_s: float
    """Waiting for the gradients of the other ranks."""
    update_s: float
    memory_bytes: NonNegativeInt | None = None
    """What training has added to this rank's resident memory at its peak so far; in some steps only."""
    time: float

    @property
    def compute_s(self) -> float:
        """Forward, backward and update, without waiting."""
        return self.passes_s - self.wait_s + self.update_s

    @property
    def step_s(self) -> float:
        """All of it."""
        return self.passes_s + self.sync_s + self.update_s

    @property
    def elements_per_s(self) -> float:
        """Rows or tokens, as the loss counts them, over the global batch."""
        return self.num_elements / self.step_s

    @property
    def parts(self) -> dict[str, float]:
        """Where this rank's step went, in seconds; together all of it."""
        return {
            "passes": self.passes_s - self.wait_s,
            "wait": self.wait_s,
            "sync": self.sync_s,
            "update": self.update_s,
        }


class EpochRecord(Frozen):
    """The end of an epoch, with its validation metrics; rank 0 alone writes it."""

    kind: Literal["epoch"] = "epoch"
    epoch: int
    """Epochs done, this one included."""
    step: int
    metrics: dict[str, float]
    time: float


AnyRecord = AttemptRecord | StepRecord | EpochRecord
_RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])


def file_of(directory: str | Path, rank: int) -> Path:
    """The telemetry file of a rank of the job in `directory`."""
    return Path(directory) / "telemetry" / f"rank-{rank}.jsonl"


class Writer:
    """Appends records; a context manager, so that the last ones reach the file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        self._end_torn_line(path)
        self._flushed = time.monotonic()

    def write(self, record: Frozen) -> None:
        """Append one record; it reaches the file within about half a second of further records."""
        self._file.write(record.model_dump_json() + "\n")
        now = time.monotonic()
        if now - self._flushed > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Let readers see everything written so far."""
        self._file.flush()
        self._flushed = time.monotonic()

    def _end_torn_line(self, path: Path) -> None:
        """A writer that was killed may have left half a line: end it, so that the next record stands alone."""
        size = path.stat().st_size
        if size:
            with path.open("rb") as file:
                file.seek(size - 1)
                torn = file.read(1) != b"\n"
            if torn:
                self._file.write("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Tail:
    """Reads a telemetry file as it grows. The file need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> Iterator[AnyRecord]:
        """The records that were completed since the last call; half a line at the end waits for its rest."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            record = _parsed(line)
            if record is not None:
                yield record


def read(path: Path) -> list[AnyRecord]:
    """All whole records of a file, in the order written; none if there is no file."""
    return list(Tail(path).poll())


def steps(path: Path) -> list[StepRecord]:
    """The steps of a run in order; a step that was repeated after a restart counts as it went the last time."""
    records = {record.step: record for record in read(path) if isinstance(record, StepRecord)}
    return [records[step] for step in sorted(records)]


def median_parts(records: Sequence[StepRecord]) -> dict[str, float]:
    """Where most steps went, in seconds: the median of each part by itself; none without steps."""
    names = records[0].parts if records else ()
    return {name: median(record.parts[name] for record in records) for name in names}


def epochs(path: Path) -> list[EpochRecord]:
    """The epochs of a run in order; one that was repeated after a restart counts as it went the last time."""
    records = {record.epoch: record for record in read(path) if isinstance(record, EpochRecord)}
    return [records[epoch] for epoch in sorted(records)]


def _parsed(line: bytes) -> AnyRecord | None:
    try:
        return _RECORD.validate_json(line)
    except ValidationError:  # torn by a kill
        return None
