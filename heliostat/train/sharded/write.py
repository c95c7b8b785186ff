"""Writing a rank's share of a state in torch's format for distributed checkpoints: a file a rank, and an index.

`torch.distributed.checkpoint.save` is not called. It has all ranks plan anew and copy all they hold at every save,
warns whenever there is no process group, and hides a full disk in an exception of its own.
"""

from collections.abc import Mapping
from operator import add, le, sub
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from heliostat.train.pieces import Held
from heliostat.train.sharded.boxes import box_of


class Staged:
    """A rank's share in memory of its own, filled anew for every save while the training waits."""

    def __init__(self, plan: SavePlan) -> None:
        self._plan = plan
        self._values: dict[MetadataIndex, Tensor] = {}

    def fill(self, state: Mapping[str, Held]) -> None:
        """Copy the values as they are now."""
        devices = set()
        for item in self._plan.items:
            source = _source(state[item.index.fqn], item)
            if item.index not in self._values:
                self._values[item.index] = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            self._values[item.index].copy_(source, non_blocking=True)
            if source.is_cuda:
                devices.add(source.device)
        for device in devices:
            torch.cuda.synchronize(device)

    def write(self, directory: Path) -> list[WriteResult]:
        """Write what was filled in; where it went."""
        if not self._plan.items:
            return []
        directory.mkdir(parents=True, exist_ok=True)
        return _Writer(directory).write_data(self._plan, _FromMemory(self._values)).value()


def number(plans: list[SavePlan]) -> list[SavePlan]:
    """The plans of all ranks with names of their own for their files."""
    return _Writer(Path()).prepare_global_plan(plans)


def write_index(directory: Path, metadata: Metadata, results: list[list[WriteResult]]) -> str:
    """Write torch's index of what the ranks have written; the name of its file."""
    directory.mkdir(parents=True, exist_ok=True)
    _Writer(directory).finish(metadata, results)
    return ".metadata"


class _Writer(FileSystemWriter):
    """Of files that are equal for equal states."""

    def __init__(self, directory: Path) -> None:
        # the values are in main memory already; by default torch would copy them through a stream of the first GPU
        super().__init__(directory, per_thread_copy_ahead=0)

    def storage_meta(self) -> StorageMeta | None:
        """Nothing: else the index would hold the directory and a random number."""
        return None


class _FromMemory(DefaultSavePlanner):
    def __init__(self, values: Mapping[MetadataIndex, Tensor]) -> None:
        super().__init__()
        self._values = values

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._values[index]


def _source(held: Held, item: WriteItem) -> Tensor:
    """The values to write, in the piece that they are a part of."""
    assert item.tensor_data is not None
    begin, sizes = item.tensor_data.chunk.offsets, item.tensor_data.chunk.sizes
    end = tuple(map(add, begin, sizes))
    for piece in held.pieces:
        box = box_of(piece)
        if all(map(le, box.begin, begin)) and all(map(le, end, box.end)):
            values = piece.values.detach()
            for dim, (first, length) in enumerate(zip(map(sub, begin, box.begin), sizes, strict=True)):
                values = values.narrow(dim, first, length)
            return values
    raise AssertionError(f"{item.index.fqn} is held in another way than at the save before")
