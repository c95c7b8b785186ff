"""What `heliostat.stage`, `split` and `replicate` in a model say of its blocks, as pins of the plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise

from torch import nn

from heliostat.errors import PlanError
from heliostat.placement.constraints import PartPin, Pins
from heliostat.train.annotations import Mark, Marks, marks_of
from heliostat.train.profiling.structure import BlockParts


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A model's annotations by number of block."""

    stages: tuple[Mark, ...] = ()
    """In the order of the chain; none where the planner makes the stages."""
    cuts: tuple[int, ...] | None = None
    """The blocks at which they begin, all but the first, which begins at block 0."""
    parts: tuple[PartPin, ...] = ()
    """Degrees of tensor parallelism and kinds of device."""


def annotated(model: nn.Module, blocks: Sequence[BlockParts], pins: Pins) -> Pins:
    """`pins` with what the annotations of `model` say.

    Args:
        model: as the task makes it.
        blocks: of `structure_of`.
        pins: other parts of the plan that are fixed.

    Raises:
        PlanError: the annotations contradict one another, the blocks, or `pins`; names both sides.
    """
    found = annotations_of(model, blocks)
    against = list(_against(found, pins))
    if against:
        raise PlanError(
            "the model's annotations and the pinned parts of the plan contradict: " + "; ".join(against),
            next_step="leave out one side of each",
        )
    return pins.model_copy(
        update={"cuts": pins.cuts if found.cuts is None else found.cuts, "parts": (*pins.parts, *found.parts)}
    )


def annotations_of(model: nn.Module, blocks: Sequence[BlockParts]) -> Annotations:
    """The annotations of `model` by block.

    Raises:
        PlanError: they contradict one another or the blocks: a stage that begins in the middle of a block or is not one
            run of blocks, a block or a stage that is to be both split and replicated, a context around nothing that
            runs.
    """
    marks = marks_of(model)
    stages, divisions = _stages(blocks, marks), [_division(block, marks) for block in blocks]
    _check_that_all_run(marks, [*stages, *filter(None, divisions)])
    if not stages:
        return Annotations(parts=tuple(_division_pins(divisions)))
    edges = (0, *list(stages.values())[1:], len(blocks))
    for first, end in pairwise(edges):
        _check_that_they_agree(divisions[first:end], next(mark for mark, begin in stages.items() if begin == first))
    kinds = (
        PartPin(first_block=first, end_block=end, kind=mark.device_kind, source=mark.words)
        for mark, (first, end) in zip(stages, pairwise(edges), strict=True)
        if mark.device_kind is not None
    )
    return Annotations(stages=tuple(stages), cuts=edges[1:-1], parts=(*kinds, *_division_pins(divisions)))


def _stages(blocks: Sequence[BlockParts], marks: dict[str, Marks]) -> dict[Mark, int]:
    """The block at which each stage begins, in the order of the chain; what is outside goes with the one before."""
    begins: dict[Mark, int] = {}
    now: Mark | None = None
    for number, block in enumerate(blocks):
        before: list[str] = []
        for path in _paths(block, marks):
            own = _stage_of(path, block, marks)
            if own not in {None, now}:
                assert own is not None
                if own in begins:
                    raise PlanError(
                        f"{own.words} is not one stage: {now.words if now else ''} lies between its modules",
                        where=f"block {number} ({block.name})",
                        causes=("modules run in another order than that of their stages",),
                        next_step="open each stage around modules that run one after another",
                    )
                if before and now is not None:
                    raise _in_the_middle(own, block, f"{', '.join(before)} of the same block: outside of it")
                begins[own] = number if begins else 0
                now = own
            before.append(path)
    return begins


def _stage_of(path: str, block: BlockParts, marks: dict[str, Marks]) -> Mark | None:
    own = marks[path].stage
    for below in _below(path, marks):
        inner = marks[below].stage
        if inner is not None and inner != own:
            raise _in_the_middle(inner, block, f"{below} is a part of {path}, which was made outside of it")
    return own


def _in_the_middle(mark: Mark, block: BlockParts, got: str) -> PlanError:
    return PlanError(
        f"{mark.words} is in the middle of block {block.name}",
        got=got,
        causes=("a stage holds whole blocks, and a block is never cut",),
        next_step=f"open the stage around all of: {', '.join(block.modules)}",
    )


def _division(block: BlockParts, marks: dict[str, Marks]) -> Mark | None:
    """The `split` or `replicate` of a block: that of any of its modules."""
    found = dict.fromkeys(
        mark for path in _paths(block, marks) for below in _below(path, marks) if (mark := marks[below].division)
    )
    _check_that_they_agree(list(found), block)
    return min(found, key=lambda mark: mark.tensor_parallel is None, default=None)


def _paths(block: BlockParts, marks: dict[str, Marks]) -> list[str]:
    """The paths of its modules; a model without children is its own only block."""
    return [path if path in marks else "" for path in block.modules]


def _below(path: str, marks: dict[str, Marks]) -> Iterator[str]:
    """`path` and the paths of all modules in it."""
    return (other for other in marks if other == path or not path or other.startswith(f"{path}."))


def _check_that_they_agree(divisions: Sequence[Mark | None], holder: BlockParts | Mark) -> None:
    """Refuse what asks for different degrees of the same ranks."""
    found = [mark for mark in dict.fromkeys(divisions) if mark is not None]
    for one, other in combinations(found, 2):
        (low, high), (least, most) = _degrees(one), _degrees(other)
        if max(low, least) > min(high, most):
            name = f"block {holder.name}" if isinstance(holder, BlockParts) else holder.words
            raise PlanError(
                f"{one.words} and {other.words} are both in {name}",
                causes=("a block, and with it its whole stage, is divided one way",),
                next_step="keep one of them, or give the other's modules a stage of their own",
            )


MOST = 1 << 30
"""More ranks than there are."""


def _degrees(mark: Mark) -> tuple[int, int]:
    """The tensor-parallel degrees that `mark` allows: the least and the most."""
    if mark.sort == "replicate":
        return 1, 1
    return (2, MOST) if mark.tensor_parallel is None else (mark.tensor_parallel, mark.tensor_parallel)


def _division_pins(divisions: Sequence[Mark | None]) -> Iterator[PartPin]:
    """One pin for each run of blocks with the same mark."""
    place = 0
    for mark, run in groupby(divisions):
        end = place + len(list(run))
        if mark is not None:
            least, most = _degrees(mark)
            yield PartPin(
                first_block=place,
                end_block=end,
                least_tensor=least,
                most_tensor=None if most == MOST else most,
                source=mark.words,
            )
        place = end


def _check_that_all_run(marks: dict[str, Marks], used: Sequence[Mark]) -> None:
    idle = {mark for one in marks.values() for mark in one if mark is not None} - set(used)
    for mark in sorted(idle, key=lambda mark: mark.words):
        raise PlanError(
            f"{mark.words} holds no block of the model",
            causes=("none of the modules made inside runs when the loss is computed",),
            next_step="open it around the modules that it is about",
        )


def _against(found: Annotations, pins: Pins) -> Iterator[str]:
    """Contradictions of the annotations and other pins, in words that name both."""
    number = len(found.stages)
    words = ", ".join(mark.words for mark in found.stages)
    if number and pins.num_stages not in {None, number}:
        yield f"num_stages is pinned to {pins.num_stages}, the model has {number}: {words}"
    if number > 1 and pins.schedule == "none":
        yield f"schedule none is that of one stage, the model has {number}: {words}"
    if found.cuts is not None and pins.cuts not in {None, found.cuts}:
        yield f"cuts are pinned to {pins.cuts}, the stages of the model begin at {found.cuts}: {words}"
    if pins.schedule == "interleaved" and (number or found.parts):
        some = words or ", ".join(part.source for part in found.parts)
        yield f"schedule interleaved gives a stage blocks from all over the chain, the model says which: {some}"
    for part in found.parts:
        if pins.tensor_parallel is not None and not part.takes_tensor(pins.tensor_parallel):
            yield f"tensor_parallel is pinned to {pins.tensor_parallel}, {part.source} asks for {part.degrees}"
        if pins.kinds is not None and not any(map(part.takes_kind, pins.kinds)):
            yield f"kinds are pinned to {', '.join(pins.kinds)}, {part.source} asks for {part.kind}"
