"""A plan in outline: cuts, shapes, options, schedule and size of round, the samples not yet dealt out. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from heliostat.placement.ground import Shape
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.allowed import Allowed
from heliostat.placement.search.costs import Costs, Option
from heliostat.placement.search.draft import Draft, DraftStage
from heliostat.placement.search.menu import Menu, goes_with, suits
from heliostat.placement.search.shares import Part, whole_step
from heliostat.placement.search.tables import shares_of
from heliostat.placement.spans import spans


class Style(NamedTuple):
    """How the rounds go through the pipeline."""

    schedule: Schedule
    chunks: int = 1
    stages: int | None = None
    """How many stages; None for any, where the schedule's memory does not depend on it."""


class Outline(NamedTuple):
    """A draft without its shares: what the moves change."""

    cuts: tuple[int, ...]
    """Where the stages end."""
    shapes: tuple[Shape, ...]
    options: tuple[Option, ...]
    style: Style
    round_size: int

    @property
    def kinds(self) -> frozenset[int]:
        """Those that have stages."""
        return frozenset(kind for shape in self.shapes for kind, count in enumerate(shape.counts) if count)


class Drafter:
    """Makes drafts of outlines: deals out the samples."""

    def __init__(self, costs: Costs, menu: Menu, global_batch: int) -> None:
        self.costs, self.menu, self.global_batch = costs, menu, global_batch
        self.allowed = Allowed(costs.chain, costs.ground.kinds, menu.pins)
        self._parts: dict[tuple[Shape, int], tuple[Part, ...] | None] = {}

    def parts(self, shape: Shape, round_size: int) -> tuple[Part, ...] | None:
        """The samples of the replicas of `shape`."""
        key = (shape, round_size)
        if key not in self._parts:
            shares = shares_of(self.costs, shape, round_size)
            self._parts[key] = whole_step(shares, self.global_batch) if shares else None
        return self._parts[key]

    def draft(self, outline: Outline) -> Draft | None:
        """`outline` as a draft; None if it is not legal."""
        begins = (0, *outline.cuts[:-1])
        single = len(begins) == 1
        if not self._is_legal(outline, begins):
            return None
        stages = []
        for begin, end, shape, option in zip(begins, outline.cuts, outline.shapes, outline.options, strict=True):
            parts = self.parts(shape, outline.round_size)
            pins = self.menu.pins
            if parts is None or pins.micro_batch not in {None, max(part.micro_batch for part in parts)}:
                return None
            if not suits(option, shape, pins) or not (single or goes_with(outline.style.schedule, option.zero)):
                return None
            stages.append(DraftStage(begin, end, shape, option, parts))
        style = outline.style
        return Draft(
            tuple(stages), "none" if single else style.schedule, 1 if single else style.chunks, outline.round_size
        )

    def _is_legal(self, outline: Outline, begins: Sequence[int]) -> bool:
        style, pins, num_stages = outline.style, self.menu.pins, len(outline.shapes)
        if any(end - begin < style.chunks for begin, end in zip(begins, outline.cuts, strict=True)):
            return False
        if pins.data_parallel is not None and any(shape.width != pins.data_parallel for shape in outline.shapes):
            return False
        if pins.equal_widths and len(set(outline.shapes)) > 1:
            return False
        rounds = -(-self.global_batch // outline.round_size)
        if style.schedule == "interleaved" and num_stages > 1 and rounds % num_stages:
            return False
        used = sum(shape.width * shape.tensor for shape in outline.shapes)
        if pins.use_all and used < sum(self.costs.ground.num_devices):
            return False
        return self._may_be_cut(outline, begins) and self.menu.has_room(outline.shapes)

    def _may_be_cut(self, outline: Outline, begins: Sequence[int]) -> bool:
        """Whether all stages, or all their chunks, may begin where they do and hold what they do."""
        if outline.style.chunks == 1 or len(begins) == 1:
            return all(map(self.allowed.stage, begins, outline.cuts, outline.shapes))
        lengths = [end - begin for begin, end in zip(begins, outline.cuts, strict=True)]
        return all(self.costs.chain.opens[span.first] for span in spans(lengths, outline.style.chunks))


def outline_of(draft: Draft) -> Outline:
    """The reverse, of a draft with common rounds."""
    return Outline(
        tuple(stage.end_block for stage in draft.stages),
        tuple(stage.shape for stage in draft.stages),
        tuple(stage.option for stage in draft.stages),
        Style(draft.schedule if len(draft.stages) > 1 else "1f1b", draft.chunks),
        draft.round_size,
    )
