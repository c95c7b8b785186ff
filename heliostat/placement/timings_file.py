"""Measured block times from a CSV file: one row for each model, device, micro-batch, degree and run of equal layers.

    model,gpu,mbs,tp,layer_first,layer_last,fwd_s,bwd_s,update_s

Layers are counted as blocks of the chain: the embedding is layer 0. `gpu` is a device type, or the beginning of several
types' names, which it then stands for. Times are those of one layer, with the collectives inside a group of `tp`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from heliostat.cluster.catalogue import Catalogue
from heliostat.errors import ConfigError
from heliostat.placement.timing import BlockTiming, PassSample
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.references import did_you_mean
from heliostat.values import Frozen

_NEXT_STEP = "the columns are model,gpu,mbs,tp,layer_first,layer_last,fwd_s,bwd_s,update_s"


class LayerRow(Frozen):
    """One row."""

    model: str
    gpu: str
    mbs: PositiveInt
    tp: PositiveInt
    layer_first: NonNegativeInt
    layer_last: NonNegativeInt
    fwd_s: NonNegativeFloat
    bwd_s: NonNegativeFloat
    update_s: NonNegativeFloat = 0.0
    """Zero where it was not measured."""


def with_timings(workload: WorkloadProfile, path: Path, catalogue: Catalogue) -> WorkloadProfile:
    """`workload` with the block times of the file `path`: of the rows with its name, or of the only model there.

    Raises:
        ConfigError: with every mistake as `file:line: message`, or because the file has other models.
    """
    rows = _of_model(_read(path), workload.name, path)
    blocks, place = [], 0
    for block in workload.blocks:
        here = [row for row in rows if row.layer_first < place + block.count and row.layer_last >= place]
        blocks.append(block.model_copy(update={"timings": _timings(here, block, place, catalogue)}))
        place += block.count
    beyond = max((row.layer_last for row in rows), default=0)
    if beyond >= place:
        raise _refused(path, f"layer {beyond} is measured, but {workload.name} has {place} blocks (0 to {place - 1})")
    return workload.model_copy(update={"blocks": tuple(blocks)})


def _read(path: Path) -> list[LayerRow]:
    mistakes, found = [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    found.append(LayerRow.model_validate({key: value for key, value in row.items() if value}))
                except ValidationError as error:
                    mistakes += [
                        f"{path}:{number}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
                    ]
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    if mistakes:
        raise ConfigError(mistakes, subject="the block times", next_step=_NEXT_STEP)
    return found


def _of_model(rows: Sequence[LayerRow], name: str, path: Path) -> list[LayerRow]:
    models = sorted({row.model for row in rows})
    if not models:
        raise _refused(path, "has no rows")
    if name not in models and len(models) > 1:
        raise _refused(
            path,
            f"has no rows of '{name}'{did_you_mean(name, models)}; it has {', '.join(models)}",
        )
    return [row for row in rows if row.model == (name if name in models else models[0])]


def _timings(rows: Sequence[LayerRow], block: Block, place: int, catalogue: Catalogue) -> tuple[BlockTiming, ...]:
    """Of the rows that have some of the `block.count` layers from `place` on: means over those layers."""
    groups: dict[tuple[str, int], dict[int, list[tuple[int, LayerRow]]]] = {}
    for row in rows:
        layers = min(row.layer_last + 1, place + block.count) - max(row.layer_first, place)
        for kind in _types(row.gpu, catalogue):
            groups.setdefault((kind, row.tp), {}).setdefault(row.mbs, []).append((layers, row))
    return tuple(_timing(kind, tensor, by_size) for (kind, tensor), by_size in groups.items())


def _timing(kind: str, tensor: int, by_size: Mapping[int, Sequence[tuple[int, LayerRow]]]) -> BlockTiming:
    updates = [row.update_s for rows in by_size.values() for _, row in rows if row.update_s]
    return BlockTiming(
        device_kind=kind,
        tensor_parallel=tensor,
        samples=tuple(
            PassSample(
                micro_batch=size,
                forward_s=_mean([(count, row.fwd_s) for count, row in rows]),
                backward_s=_mean([(count, row.bwd_s) for count, row in rows]),
            )
            for size, rows in sorted(by_size.items())
        ),
        update_s=sum(updates) / len(updates) if updates else None,
    )


def _mean(weighted: Sequence[tuple[int, float]]) -> float:
    return sum(count * value for count, value in weighted) / sum(count for count, _ in weighted)


def _types(name: str, catalogue: Catalogue) -> list[str]:
    """The types that `name` is or begins; itself if none, which a cluster file may define."""
    if name in catalogue.types:
        return [name]
    return [one for one in catalogue.types if one.startswith(name)] or [name]


def _refused(path: Path, message: str) -> ConfigError:
    return ConfigError([f"{path}: {message}"], subject="the block times", next_step=_NEXT_STEP)
