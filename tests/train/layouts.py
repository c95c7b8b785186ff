"""A small state, and ways in which the ranks of a plan hold it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from heliostat.train.pieces import Division, Held, held, whole

SHAPES: dict[str, tuple[int, ...]] = {
    "embed": (10, 4),
    "up": (6, 8),
    "down": (8, 6),
    "qkv": (12, 5),
    "qkv_bias": (12,),
    "norm": (5,),
    "count": (),
}
"""`count` is a buffer: no optimizer has a state of it."""
STAGES = (("embed", "up", "down", "count"), ("embed", "qkv", "qkv_bias", "norm"))
"""The tensors of two pipeline stages; `embed` is tied."""

State = dict[str, Tensor]
Part = Callable[[int, str, Tensor], Held | None]
"""(rank, name, the rank's copy of the whole tensor) -> what the rank holds of it."""


class Layout(NamedTuple):
    """How ranks hold the model, and the optimizer's state."""

    num_ranks: int
    model: Part
    optimizer: Part


def values(step: int) -> dict[str, State]:
    """All of the state after `step` steps: every number in it is different."""
    start, found = 1000.0 * step, {}
    for name, shape in SHAPES.items():
        size = torch.Size(shape).numel()
        found[name] = torch.arange(start, start + size).reshape(shape)
        start += size
    optimizer = {f"exp_avg.{name}": -found[name] for name in SHAPES if name != "count"}
    return {"model": found | {"count": torch.tensor(step)}, "optimizer": optimizer}


def zeros() -> dict[str, State]:
    """The same tensors, to be read into."""
    return {part: {name: torch.zeros_like(one) for name, one in state.items()} for part, state in values(1).items()}


def states(layout: Layout, rank: int, content: Mapping[str, State]) -> dict[str, dict[str, Held]]:
    """What `rank` holds of `content`."""
    found: dict[str, dict[str, Held]] = {}
    for part, of_rank in (("model", layout.model), ("optimizer", layout.optimizer)):
        given = {name: of_rank(rank, name.removeprefix("exp_avg."), one) for name, one in content[part].items()}
        found[part] = {name: one for name, one in given.items() if one is not None}
    return found


def copies(rank: int, name: str, tensor: Tensor) -> Held:
    return whole(tensor)


def tensor_parallel(*widths: int) -> Part:
    """Ranks with these shares of 6: column, row and grouped cuts."""

    def part(rank: int, name: str, tensor: Tensor) -> Held:
        cut = division(name, widths, rank)
        return whole(tensor) if cut is None else held(cut.of(tensor), SHAPES[name], cut)

    return part


def division(name: str, widths: tuple[int, ...], rank: int) -> Division | None:
    begin, end = sum(widths[:rank]), sum(widths[: rank + 1])
    first, last = begin * 4 // 6, end * 4 // 6
    match name:
        case "up":
            return Division(0, ((begin, end),))
        case "down":
            return Division(1, ((begin, end),))
        case "embed":
            return Division(1, ((first, last),))
        case "qkv" | "qkv_bias":  # the rows of q, k and v, 4 each: the same part of all three
            return Division(0, tuple((4 * k + first, 4 * k + last) for k in range(3)))
    return None


def rows(*counts: int, widths: tuple[int, ...] = (6,)) -> Part:
    """ZeRO shards of these tenths of the rows, over tensor-parallel parts; ranks of the latter are neighbours."""

    def part(rank: int, name: str, tensor: Tensor) -> Held:
        replica, place = divmod(rank, len(widths))
        cut = division(name, widths, place) if len(widths) > 1 else None
        own = tensor if cut is None else cut.of(tensor)
        if not own.dim():
            return whole(tensor)
        edges = [len(own) * sum(counts[:k]) // 10 for k in (replica, replica + 1)]
        return held(own[slice(*edges)], SHAPES[name], cut, first_row=edges[0])

    return part


def pipeline(width: int, first: Part, second: Part) -> Part:
    """Two stages, of which the first has `width` ranks; the two may hold `embed` in different ways."""

    def part(rank: int, name: str, tensor: Tensor) -> Held | None:
        stage = int(rank >= width)
        if name not in STAGES[stage]:
            return None
        return (first, second)[stage](rank - width * stage, name, tensor)

    return part


LAYOUTS = {
    "one": Layout(1, copies, copies),
    "two-copies": Layout(2, copies, copies),
    "zero1-uneven": Layout(3, copies, rows(1, 0, 9)),
    "zero3-uneven": Layout(4, rows(3, 3, 2, 2), rows(3, 3, 2, 2)),
    "tensor2": Layout(2, tensor_parallel(3, 3), tensor_parallel(3, 3)),
    "tensor3-uneven": Layout(3, tensor_parallel(3, 1, 2), tensor_parallel(3, 1, 2)),
    "tensor2-zero2": Layout(4, rows(7, 3, widths=(2, 4)), rows(7, 3, widths=(2, 4))),
    "pipeline1+2": Layout(3, pipeline(1, copies, rows(4, 6)), pipeline(1, copies, rows(4, 6))),
    "pipeline2+2": Layout(4, pipeline(2, rows(4, 6), tensor_parallel(4, 2)), pipeline(2, rows(7, 3), rows(4, 6))),
}
