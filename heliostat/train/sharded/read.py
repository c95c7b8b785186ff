"""Reading from a directory in torch's format for distributed checkpoints, whatever ranks wrote it.

A rank reads what it needs by itself, with or without a process group.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from heliostat.train.pieces import Held, whole


class Stored:
    """The tensors in a directory."""

    def __init__(self, directory: Path) -> None:
        self._reader = FileSystemReader(directory)
        index = self._reader.read_metadata()
        self._reader.set_up_storage_reader(index, is_coordinator=True)
        self._tensors = {
            name: one for name, one in index.state_dict_metadata.items() if isinstance(one, TensorStorageMetadata)
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by name."""
        return {name: tuple(one.size) for name, one in self._tensors.items()}

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor."""
        return self._tensors[name].properties.dtype

    def read(self, state: Mapping[str, Held]) -> None:
        """Read values into what a rank holds; all of it is there, in these shapes."""
        items = [
            item
            for name, held in state.items()
            for item in create_read_items_for_chunk_list(name, self._tensors[name], _chunks(held))
        ]
        self._reader.read_data(LoadPlan(items), _IntoPieces(state)).wait()

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        values = torch.empty(self.shapes[name], dtype=self.dtype(name))
        self.read({name: whole(values)})
        return values


def _chunks(held: Held) -> list[ChunkStorageMetadata]:
    return [ChunkStorageMetadata(offsets=torch.Size(piece.offset), sizes=piece.values.shape) for piece in held.pieces]


class _IntoPieces(DefaultLoadPlanner):
    def __init__(self, state: Mapping[str, Held]) -> None:
        super().__init__()
        self._pieces = {
            (name, piece.offset): piece.values.detach() for name, held in state.items() for piece in held.pieces
        }

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        assert index.offset is not None, "that of a piece"
        return self._pieces[index.fqn, tuple(index.offset)]
