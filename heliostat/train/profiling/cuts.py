"""Which products of a block tensor parallelism can divide for certain, found from how tensors flow between them.

Memory between two products with weights belongs to one region. A region that holds the block's input or output is
whole on every rank. Another is divided where a product that reads a whole region writes it (its columns are divided),
a product that writes a whole region reads it (its depth is divided), and every operation in between works on the parts
alone: then one all-reduce after the second product makes its result whole (Shoeybi et al. 2019).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from heliostat.train.profiling.layout import Layout
from heliostat.train.profiling.record import Call

_aten = torch.ops.aten
_LOSSES = {_aten._log_softmax.default, _aten.nll_loss_forward.default}  # noqa: SLF001


class Cuts(NamedTuple):
    """How a block is divided."""

    roles: Mapping[Call, Literal["column", "row"]]
    """Of calls with weights."""
    units: Mapping[Call, int]
    """Of these calls: equal runs of columns, or of the depth, that stay together, as those of a head."""
    divided: frozenset[int]
    """Memory of which each rank has a part."""
    limit: int
    """Ranks that can share the block."""


def find_cuts(calls: Sequence[Call], outside: Iterable[int]) -> Cuts:
    """The certain divisions of a block.

    Args:
        calls: of the block, in order.
        outside: memory that other blocks write or read.
    """
    regions = _Regions(calls, outside)
    limits = _settled(regions)
    roles: dict[Call, Literal["column", "row"]] = {}
    units: dict[Call, int] = {}
    for call in regions.products:
        written, read = regions.written_by(call), regions.read_by(call)
        if written in limits:
            alike = [call, *regions.biases(call)]
            roles |= dict.fromkeys(alike, "column")
            units |= dict.fromkeys(alike, limits[written])
        elif read in limits:
            roles[call], units[call] = "row", limits[read]
    table = _table(calls)
    if table is not None:
        roles[table], units[table] = "row", int(table.weights[0].shape[0])
    return Cuts(roles, units, regions.memory_of(limits), min(units.values(), default=1))


def _settled(regions: "_Regions") -> dict[int, int]:
    """Region -> ranks that can share it; a region that cannot be divided is whole, which others may depend on."""
    while True:
        limits: dict[int, int] = {}
        for region in regions.inner():
            limit = _limit(regions, region)
            if limit is None:
                regions.make_whole(region)
                break
            limits[region] = limit
        else:
            return limits


def _table(calls: Sequence[Call]) -> Call | None:
    """The lookup in the longest table by indices of the batch: its rows can be divided (Shoeybi et al. 2019)."""
    lookups = [call for call in calls if call.overload is _aten.embedding.default and call.weights]
    return max(lookups, key=lambda call: call.weights[0].numel(), default=None)


class _Regions:
    """Memory that is joined by operations other than products with weights."""

    def __init__(self, calls: Sequence[Call], outside: Iterable[int]) -> None:
        self.calls = calls
        self.products = [call for call in calls if call.product is not None and call.product.has_weight]
        self._above: dict[int, int] = {}
        for call in calls:
            joined = [view.storage for view in (*call.inputs, *call.outputs)]
            for storage in joined:
                self._above.setdefault(storage, storage)
            if not (call.product is not None and call.product.has_weight):
                for storage in joined[1:]:
                    self._above[self.root(storage)] = self.root(joined[0])
        lookups = {call.outputs[0].storage for call in calls if call.overload is _aten.embedding.default}
        written = {self.written_by(call) for call in self.products}
        self._whole = {self.root(storage) for storage in (*outside, *lookups) if storage in self._above}
        self._whole |= {self.root(storage) for storage in self._above} - written

    def root(self, storage: int) -> int:
        """The region of some memory."""
        while self._above[storage] != storage:
            storage = self._above[storage]
        return storage

    def inner(self) -> list[int]:
        """Regions that may be divided, in the order in which they are written."""
        written = dict.fromkeys(self.written_by(call) for call in self.products)
        return [region for region in written if region not in self._whole]

    def make_whole(self, region: int) -> None:
        """Every rank has all of it."""
        self._whole.add(region)

    def is_whole(self, region: int | None) -> bool:
        """Whether every rank has all of it; a product that reads no region reads the batch."""
        return region is None or region in self._whole

    def written_by(self, product: Call) -> int:
        """The region of a product's result."""
        return self.root(product.outputs[0].storage)

    def read_by(self, product: Call) -> int | None:
        """The region of a product's operand."""
        return self.root(product.inputs[0].storage) if product.inputs else None

    def biases(self, product: Call) -> list[Call]:
        """What adds a parameter to each column of a product, in a pass of its own."""
        assert product.product is not None
        size = (product.product.n,)
        return [
            call
            for call in self.calls
            if call.product is None
            and any(tuple(weight.shape) == size for weight in call.weights)
            and self.root(call.outputs[0].storage) == self.written_by(product)
        ]

    def memory_of(self, regions: Iterable[int]) -> frozenset[int]:
        """All that belongs to these regions."""
        wanted = set(regions)
        return frozenset(storage for storage in self._above if self.root(storage) in wanted)


def _limit(regions: _Regions, region: int) -> int | None:
    """Ranks that can share `region`; None if it cannot be divided for certain."""
    writers = [call for call in regions.products if regions.written_by(call) == region]
    readers = [call for call in regions.products if regions.read_by(call) == region]
    if not all(regions.is_whole(regions.read_by(call)) for call in writers):
        return None
    if not all(regions.is_whole(regions.written_by(call)) for call in readers):
        return None
    inside = [
        call
        for call in regions.calls
        if call not in regions.products
        and not call.is_view
        and any(regions.root(view.storage) == region for view in (*call.inputs, *call.outputs))
    ]
    if not readers:
        is_loss = {call.overload for call in inside} >= _LOSSES and len(writers) == 1
        return writers[0].product.n if is_loss and writers[0].product is not None else None
    layout = Layout()
    for call in regions.calls:
        if call in writers:
            layout.starts(call)
        elif (call in readers and not layout.ends(call)) or (call in inside and not layout.passes(call)):
            return None
    return layout.limit
