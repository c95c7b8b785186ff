"""What a search chooses from: sizes of a round, schedules, shapes with their shares, tables of costs. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.constraints import Constraints
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.search.allowed import widest_degree
from heliostat.placement.search.chain import Chain
from heliostat.placement.search.costs import Costs, Options
from heliostat.placement.search.effort import effort_for
from heliostat.placement.search.menu import Menu, options_of
from heliostat.placement.search.outline import Style
from heliostat.placement.search.shares import Shares
from heliostat.placement.search.tables import Tables, shares_of
from heliostat.placement.workload import WorkloadProfile

SMALL = 2000
"""Shapes times parts of the chain up to which everything is tried."""
CHUNKS, MOST_STAGES = (2, 4), 64
"""Of the schedules that are tried for each number of stages by itself."""
LARGEST_ODD = 15
"""Factor of a number of devices that rounds are made to fit."""


class Space:
    """One question's possibilities."""

    def __init__(
        self,
        workload: WorkloadProfile,
        cluster: ClusterSpec,
        wanted: Constraints,
        constants: Efficiencies | None = None,
    ) -> None:
        self.wanted = wanted = wanted.in_short()
        self.pins = wanted.pins
        self.ground = Ground(cluster, constants, wanted.pins.kinds)
        self.chain = Chain(workload)
        self.costs = Costs(self.chain, self.ground, wanted.execution)
        self.menu = Menu(self.ground, widest_degree(workload, wanted.pins), wanted.pins)
        self.num_devices = sum(self.ground.num_devices)
        shapes = self.menu.shapes(wanted.global_batch)
        self.is_small = self.menu.is_full and len(shapes) * len(self.chain.counts) <= SMALL
        """Whether everything is tried."""
        self.effort = effort_for(self.num_devices, is_small=self.is_small)
        self._tables: dict[int, Tables | None] = {}

    def with_more_memory(self, extra_bytes: Mapping[str, int]) -> "Space":
        """The same where the devices of some kinds have so many bytes more."""
        twin = copy(self)
        twin.costs = self.costs.with_more_memory(extra_bytes)
        twin.ground = twin.costs.ground
        twin._tables = {}  # noqa: SLF001  # its own
        return twin

    def round_sizes(self) -> list[int]:
        """Samples of a round: powers of two times the odd factors of what devices come in."""
        batch, pins = self.wanted.global_batch, self.pins
        if pins.micro_batch is not None:
            sizes = {pins.micro_batch * shape.width for shape in self.menu.shapes(batch)}
            return sorted(size for size in sizes if size <= batch)
        counts = self.ground.num_devices
        if self.is_small:
            bases = set(range(1, min(max(3, *counts), LARGEST_ODD) + 1, 2))
        else:
            odd = {count // (count & -count) for count in counts}
            bases = {1, *(one for one in odd if one <= LARGEST_ODD)}
        most = min(batch, 4 * max(256, self.num_devices))
        sizes = {base << power for base in bases for power in range(most.bit_length())}
        return sorted(size for size in sizes if size <= most)

    def num_rounds(self, size: int) -> int:
        """Rounds of `size` samples in a step."""
        return -(-self.wanted.global_batch // size)

    def styles(self) -> Iterator[Style]:
        """The schedules whose memory does not depend on the number of stages."""
        if self.pins.schedule in {None, "1f1b"}:
            yield Style("1f1b")
        # where transfers are slow GPipe hides them best, but it needs the most memory
        if self.pins.schedule == "gpipe" or (self.is_small and self.pins.schedule is None):
            yield Style("gpipe")

    def counted_styles(self, numbers: Sequence[int] = ()) -> Iterator[Style]:
        """The other schedules, for each of `numbers` of stages, or for all."""
        pins = self.pins
        most = min(self.chain.num_blocks, self.num_devices, MOST_STAGES)
        for number in numbers or range(2, most + 1):
            if not 2 <= number <= most or pins.num_stages not in {None, number}:
                continue
            if pins.schedule in {None, "zero-bubble"}:
                yield Style("zero-bubble", 1, number)
            # a stage of an interleaved schedule holds blocks from all over the chain
            if pins.names_blocks or pins.schedule not in {None, "interleaved"}:
                continue
            for chunks in CHUNKS if pins.chunks is None else (pins.chunks,):
                if chunks * number <= self.chain.num_blocks:
                    yield Style("interleaved", chunks, number)

    def any_styles(self) -> list[Style]:
        """All schedules, for any number of stages."""
        few = (2, 3, 4) if self.pins.num_stages is None else (self.pins.num_stages,)
        return sorted({Style(*style[:2]) for style in (*self.styles(), *self.counted_styles(few))})

    def shapes(self, size: int) -> list[tuple[Shape, Shares]]:
        """The menu with the samples of a round shared out."""
        pairs = ((shape, shares_of(self.costs, shape, size)) for shape in self.menu.shapes(size))
        return [
            (shape, shares)
            for shape, shares in pairs
            if shares and self.pins.micro_batch in {None, max(map(max, filter(None, shares)))}
        ]

    def tables(self, size: int) -> Tables | None:
        """The costs of the whole menu; None if nothing is on it."""
        if size not in self._tables:
            shapes = self.shapes(size)
            self._tables[size] = self.tables_of(shapes, size) if shapes else None
        return self._tables[size]

    def tables_of(self, shapes: Sequence[tuple[Shape, Shares]], size: int, options: Options | None = None) -> Tables:
        """The costs of `shapes`, run in any of `options`, else in all ways that are seldom far from the best."""
        few = options is None and not self.is_small
        chosen = options or options_of(self.pins)
        return Tables(self.costs, shapes, size, self.num_rounds(size), chosen, self.pins, few=few)

    def groups(self, tables: Tables) -> list[list[int] | None]:
        """The shapes that may be combined, as places in `tables`; None for all."""
        return [[place] for place in range(len(tables.shapes))] if self.pins.equal_widths else [None]
