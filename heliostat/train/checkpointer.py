"""Saving checkpoints while the training goes on.

A save copies what this rank has to write and returns. A thread writes it, all ranks meet, and rank 0 commits; a rank
that is killed at any instant leaves what was committed before (`heliostat.train.checkpoint` has the protocol).

Who writes what is agreed at the first save, so that a rank copies no more than it writes: of a state that n ranks hold
alike, about an n-th. Main memory for that copy stays taken from the first save to the last.
"""

import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult

from heliostat.train import checkpoint, draft
from heliostat.train.checkpoint import FileRecord, Manifest
from heliostat.train.pieces import Held
from heliostat.train.sharded.meeting import Meeting
from heliostat.train.sharded.shares import Offer, divide, offers
from heliostat.train.sharded.write import Staged, number, write_index

logger = logging.getLogger(__name__)

States = Mapping[str, Mapping[str, Held]]
"""Part name -> tensor name -> what this rank holds of it."""


class Retention(NamedTuple):
    """Which checkpoints stay: the latest ones, and the best one."""

    keep: int
    metric: str
    mode: Literal["max", "min"]


class _Share(NamedTuple):
    """What one rank has written of a part."""

    results: list[WriteResult]
    files: dict[str, FileRecord]


class Checkpointer:
    """Every rank's side of the saves of one run: a context that ends when the last save is committed.

    All ranks make it at the same point, save the same steps, and hold the same pieces at every save.
    """

    def __init__(
        self, directory: Path, *, identity: Mapping[str, Any], tied: Mapping[str, str], retention: Retention
    ) -> None:
        """Begin; drafts that a killed run has left are removed at the first save.

        Args:
            directory: of the checkpoints, on storage that all ranks share.
            identity: what the run's loss curve depends on.
            tied: further name -> name under which it is saved, of tensors of the model that have several names.
            retention: which checkpoints stay.
        """
        self._directory = directory
        self._identity = dict(identity)
        self._tied = dict(tied)
        self._retention = retention
        self._meeting = Meeting()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None
        self._staged: dict[str, Staged] = {}
        self._indices: dict[str, Metadata] = {}
        """Of rank 0, by part."""

    def save(self, step: int, states: States, metrics: Mapping[str, float]) -> None:
        """Copy the states, then write and commit them while the training goes on.

        Waits for the save before. All ranks call it.

        Args:
            step: steps done.
            states: this rank's. What several ranks hold, one of them writes: it must be equal on them all.
            metrics: validation metrics of the step; those of rank 0 count.

        Raises:
            StoreError: the save before this one could not be written; what was committed before it is untouched.
            RuntimeError: another rank is gone.

        """
        self.wait()
        if not self._staged:
            self._agree(states)
        for part, staged in self._staged.items():
            staged.fill(states[part])
        self._last = self._thread.submit(self._write, step, dict(metrics))

    def wait(self) -> None:
        """Until the last save is committed.

        Raises:
            StoreError: it could not be written; what was committed before it is untouched.
            RuntimeError: another rank is gone.

        """
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """End as `wait` does; an error that is under way already goes first."""
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            logger.warning("the last checkpoint was not committed\n%s", error)
        finally:
            self._thread.shutdown()

    def _agree(self, states: States) -> None:
        """Divide the writing among the ranks."""

        def join(offered: list[dict[str, list[Offer]]]) -> list[dict[str, SavePlan]]:
            with draft.writing_to(self._directory):
                draft.discard_all(self._directory)
            plans: list[dict[str, SavePlan]] = [{} for _ in offered]
            for part in states:
                divided, self._indices[part] = divide([own[part] for own in offered])
                for own, plan in zip(plans, number(divided), strict=True):
                    own[part] = plan
            return plans

        plans = self._meeting.meet(lambda: {part: offers(state) for part, state in states.items()}, join)
        self._staged = {part: Staged(plan) for part, plan in plans.items()}

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        path = draft.draft_of(self._directory, step)
        try:
            self._meeting.meet(lambda: self._write_share(path), lambda written: self._commit(step, metrics, written))
        except Exception:
            if self._meeting.rank == 0:
                shutil.rmtree(path, ignore_errors=True)
            raise

    def _write_share(self, path: Path) -> dict[str, _Share]:
        with draft.writing_to(self._directory):
            shares = {}
            for part, staged in self._staged.items():
                results = staged.write(path / part)
                names = {f"{part}/{result.storage_data.relative_path}" for result in results}
                shares[part] = _Share(results, {name: FileRecord.of(path / name) for name in names})
            return shares

    def _commit(self, step: int, metrics: dict[str, float], written: list[dict[str, _Share]]) -> list[None]:
        path = draft.draft_of(self._directory, step)
        with draft.writing_to(self._directory):
            files = {name: record for own in written for share in own.values() for name, record in share.files.items()}
            for part, index in self._indices.items():
                name = write_index(path / part, index, [own[part].results for own in written])
                files[f"{part}/{name}"] = FileRecord.of(path / part / name)
            manifest = Manifest(step=step, metrics=metrics, identity=self._identity, tied=self._tied, files=files)
            draft.commit(self._directory, manifest)
            checkpoint.retain(self._directory, **self._retention._asdict())
        return [None] * len(written)
