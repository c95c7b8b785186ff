"""The shapes of stage that a search puts together, and the room there is for them. Pure.

With few devices every shape is on the menu. With many, of a kind alone only the widths that hold a round without idle
replicas; of several kinds together only equal parts of all their devices.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations, product

import numpy as np

from heliostat.placement.constraints import Pins
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.chain import Floats
from heliostat.placement.search.costs import Option
from heliostat.placement.strategy import Recompute, Zero

DEGREES = (1, 2, 4, 8, 16, 32, 64)
"""Of tensor parallelism."""
FULL_MENU = 160
"""Shapes up to which all are tried."""
PARTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""Into how many equal stages the devices of a kind are divided on a short menu."""
FEW_PARTS, FEWER_PARTS = (1, 2, 3, 4, 6, 8, 12, 16), (1, 2, 4, 8)
"""The same of two kinds together, and of more."""
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
ZERO: tuple[Zero, ...] = (0, 1, 2, 3)


class Menu:
    """Shapes and room of one search."""

    def __init__(self, ground: Ground, largest_tensor: int, pins: Pins) -> None:
        self.ground, self.pins = ground, pins
        self.degrees = [tensor for tensor in DEGREES if tensor <= largest_tensor and self._has_room(tensor)]
        if pins.tensor_parallel is not None:
            self.degrees = [tensor for tensor in self.degrees if tensor == pins.tensor_parallel]
        self._rows = [
            (kind, tensor)
            for kind in range(len(ground.kinds))
            for tensor in DEGREES
            if tensor == 1 or (tensor <= largest_tensor and 0 < ground.room(kind, tensor) < ground.num_devices[kind])
        ]
        self.room: Floats = np.array([ground.room(kind, tensor) for kind, tensor in self._rows], dtype=float)
        """Devices, by kind and by the least tensor-parallel degree that they serve."""
        self.device_rows = [self._rows.index((kind, 1)) for kind in range(len(ground.kinds))]
        self._everything = self._all()

    def need(self, shape: Shape) -> Floats:
        """What `shape` takes of `room`."""
        return np.array(
            [shape.counts[kind] * shape.tensor if shape.tensor >= tensor else 0 for kind, tensor in self._rows],
            dtype=float,
        )

    def has_room(self, shapes: Iterable[Shape]) -> bool:
        """Whether all of `shapes` find devices."""
        return bool(np.all(sum((self.need(shape) for shape in shapes), np.zeros(len(self.room))) <= self.room))

    @property
    def is_full(self) -> bool:
        """Whether every shape is on the menu."""
        return self._everything is not None

    def shapes(self, round_size: int) -> list[Shape]:
        """What stages may stand on, where a round has `round_size` samples."""
        width = self.pins.data_parallel
        if self._everything is not None:
            found = set(self._everything)
        else:
            found = (
                {*self._alone(round_size), *self._together(round_size)} if width is None else set(self._pinned(width))
            )
        return sorted(shape for shape in found if shape.width <= round_size and width in {None, shape.width})

    def _has_room(self, tensor: int) -> bool:
        return any(self.ground.room(kind, tensor) for kind in range(len(self.ground.kinds)))

    def _all(self) -> list[Shape] | None:
        found: list[Shape] = []
        for tensor in self.degrees:
            most = [self.ground.room(kind, tensor) // tensor for kind in range(len(self.ground.kinds))]
            if np.prod([one + 1.0 for one in most]) + len(found) > FULL_MENU:
                return None
            found += [Shape(counts, tensor) for counts in product(*(range(one + 1) for one in most)) if any(counts)]
        return found

    def _alone(self, round_size: int) -> Iterator[Shape]:
        for kind, tensor in product(range(len(self.ground.kinds)), self.degrees):
            most = self.ground.room(kind, tensor) // tensor
            for parts in PARTS:
                width = most // parts
                if width:
                    width = min(width, round_size)
                    for one in {width, -(-round_size // -(-round_size // width))}:
                        yield self._shape({kind: one}, tensor)

    def _together(self, round_size: int) -> Iterator[Shape]:
        kinds = range(len(self.ground.kinds))
        for many in range(2, len(kinds) + 1):
            for chosen in combinations(kinds, many):
                for tensor, parts in product(self.degrees, FEW_PARTS if len(kinds) == 2 else FEWER_PARTS):
                    counts = {kind: self.ground.room(kind, tensor) // tensor // parts for kind in chosen}
                    if all(counts.values()) and sum(counts.values()) <= round_size:
                        yield self._shape(counts, tensor)

    def _pinned(self, width: int) -> Iterator[Shape]:
        """Shapes of so many replicas: of one kind, and of every two in all shares."""
        for tensor in self.degrees:
            room = [self.ground.room(kind, tensor) // tensor for kind in range(len(self.ground.kinds))]
            for kind, other in product(range(len(room)), repeat=2):
                for count in range(1, width + 1):
                    rest = {other: width - count} if other > kind and width > count else {}
                    counts = {kind: count, **rest}
                    if sum(counts.values()) == width and all(many <= room[one] for one, many in counts.items()):
                        yield self._shape(counts, tensor)

    def _shape(self, counts: dict[int, int], tensor: int) -> Shape:
        return Shape(tuple(counts.get(kind, 0) for kind in range(len(self.ground.kinds))), tensor)


def options_of(pins: Pins) -> tuple[Option, ...]:
    """The ways to run a stage, whatever its shape."""
    found = (Option(*one) for one in product((False, True), RECOMPUTE, ZERO, (False, True)))
    return tuple(
        option
        for option in found
        if pins.recompute in {None, option.recompute} and pins.offload in {None, option.offload}
    )


def suits(option: Option, shape: Shape, pins: Pins, *, few: bool = False) -> bool:
    """Whether `option` means something on `shape`, and what is pinned is so.

    Args:
        option: which.
        shape: of the stage.
        pins: what is pinned.
        few: only what is seldom far from the best; the small changes at the end find the rest.
    """
    if (shape.tensor == 1 and option.sequence_parallel) or (shape.width == 1 and option.zero):
        return False
    if shape.tensor > 1 and pins.sequence_parallel not in {None, option.sequence_parallel}:
        return False
    if shape.width > 1 and pins.zero not in {None, option.zero}:
        return False
    return not few or not _is_rare(option, shape, pins)


def goes_with(schedule: Schedule, zero: Zero) -> bool:
    """Whether stages with so much ZeRO can be run under `schedule`.

    ZeRO 2 and 3 divide the gradients in every backward pass, and zero-bubble makes those of the parameters after it.
    """
    return schedule != "zero-bubble" or zero < 2


def _is_rare(option: Option, shape: Shape, pins: Pins) -> bool:
    zero = shape.width > 1 and pins.zero is None and (option.zero in {0, 2} or _has_gap(option, pins))
    host = option.offload and pins.offload is None and not _gains_by_offload(option, pins)
    flat = shape.tensor > 1 and pins.sequence_parallel is None and not option.sequence_parallel
    return zero or host or flat


def _gains_by_offload(option: Option, pins: Pins) -> bool:
    return option.recompute == (pins.recompute or "full") or (option.recompute == "none" and option.zero < 2)


def _has_gap(option: Option, pins: Pins) -> bool:
    return option.zero == 3 and option.recompute == "selective" and pins.recompute is None
