"""Which rank writes what of a state that ranks hold in parts and in copies: every element once, the load divided."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from heliostat.train.pieces import Held
from heliostat.train.sharded.boxes import Box, box_of, disjoint


class Offer(NamedTuple):
    """A piece that a rank holds and could write."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    dtype: torch.dtype
    box: Box


def offers(state: Mapping[str, Held]) -> list[Offer]:
    """All that a rank holds."""
    return [
        Offer(name, held.shape, piece.values.dtype, box_of(piece))
        for name, held in state.items()
        for piece in held.pieces
    ]


def divide(offered: Sequence[Sequence[Offer]]) -> tuple[list[SavePlan], Metadata]:
    """What each of the ranks writes, given what each holds, and torch's index of it all.

    A piece that several ranks hold goes to the one with the least to write so far.
    """
    holders: dict[str, dict[Box, list[int]]] = {}
    kinds: dict[str, Offer] = {}
    for rank, own in enumerate(offered):
        for offer in own:
            kinds[offer.name] = offer
            holders.setdefault(offer.name, {}).setdefault(offer.box, []).append(rank)
    items: list[list[WriteItem]] = [[] for _ in offered]
    load_bytes = [0] * len(offered)
    for name, kind in kinds.items():
        for part, whole in disjoint(holders[name], kind.shape):
            rank = min(holders[name][whole], key=load_bytes.__getitem__)
            load_bytes[rank] += part.volume * kind.dtype.itemsize
            items[rank].append(_item(kind, part))
    return create_default_global_save_plan([SavePlan(own) for own in items])


def _item(kind: Offer, part: Box) -> WriteItem:
    chunk = ChunkStorageMetadata(offsets=torch.Size(part.begin), sizes=torch.Size(part.sizes))
    data = TensorWriteData(chunk=chunk, properties=TensorProperties(dtype=kind.dtype), size=torch.Size(kind.shape))
    return WriteItem(index=MetadataIndex(kind.name, chunk.offsets), type=WriteItemType.SHARD, tensor_data=data)
