"""The links of a chain: which segments of a record make one block, and what passes from one to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from torch import nn

from heliostat.train.profiling.record import Call, Recorder, Segment, Source


@dataclass(eq=False)
class Link:
    """Segments that make one block."""

    place: int
    """In the chain."""
    segments: list[Segment]
    parameters: list[nn.Parameter] = field(default_factory=list)
    """Those that no link before it has."""

    @property
    def is_element(self) -> bool:
        """Whether it is an element of a container."""
        return any(one.part is not None and one.part.is_element for one in self.segments)

    @property
    def name(self) -> str:
        """The paths of its parts."""
        return "+".join(dict.fromkeys(one.part.name for one in self.segments if one.part is not None)) or "glue"

    @property
    def parts(self) -> list[Segment]:
        """Without glue."""
        return [one for one in self.segments if one.part is not None]

    @property
    def original(self) -> int | None:
        """The segment that ran in full, where this link is a copy."""
        return next((one.original for one in self.parts if one.original is not None), None)

    @property
    def glue(self) -> list[tuple[object, ...]]:
        """What ran after its parts, and what it moved."""
        calls = [call for one in self.segments if one.part is None for call in one.calls if not call.is_view]
        return [(call.name, call.product, call.elements, call.backward_elements) for call in calls]

    @property
    def calls(self) -> list[Call]:
        """All of its segments."""
        return [call for segment in self.segments for call in segment.calls]


def links_of(segments: Sequence[Segment]) -> list[Link]:
    """Elements of containers by themselves, with the glue after them; parts that stand alone joined with their kind.

    Where no container is, every part is a link.
    """
    joins = any(one.part is not None and one.part.is_element for one in segments)
    links: list[Link] = []
    waiting: list[Segment] = []
    for number, segment in enumerate(segments):
        following = segments[number + 1].part if number + 1 < len(segments) else None
        if segment.part is None and not links:
            waiting.append(segment)
            continue
        alone = not segment.part.is_element if segment.part else following is not None and not following.is_element
        glued = segment.part is None and not (alone and links[-1].is_element)
        if links and (glued or segment.is_idle or (joins and alone and not links[-1].is_element)):
            links[-1].segments.append(segment)
        else:
            links.append(Link(len(links), [*waiting, segment]))
            waiting = []
    return links or [Link(0, waiting)]


def share_parameters(links: Sequence[Link], model: nn.Module) -> None:
    """Each parameter belongs to the first link that has it; one that nothing uses, to the last."""
    seen: set[int] = set()
    for link in links:
        held = [one for segment in link.segments if segment.part for one in segment.part.module.parameters()]
        held += [one for call in link.calls for one in call.weights]
        held += model.parameters() if link is links[-1] else []
        for parameter in held:
            if id(parameter) not in seen:
                seen.add(id(parameter))
                link.parameters.append(parameter)


class Flow:
    """What passes between links: only what depends on the batch and has a gradient.

    Masks and positions can be made anew by whoever needs them.
    """

    def __init__(self, recorder: Recorder, links: Sequence[Link], num_samples: int) -> None:
        numbers = {id(segment): number for number, segment in enumerate(recorder.segments)}
        self.place = {numbers[id(segment)]: link.place for link in links for segment in link.segments}
        self.place[-1] = -1
        self.boundary = [0.0] * len(links)
        self.carried = [0.0] * len(links)
        self.received = [0.0] * len(links)
        """What a link reads of those before it and nobody after it."""
        self.passing: set[int] = set()
        """Memory that several links read."""
        self._touched: list[set[int]] = [set() for _ in links]
        self.num_samples = num_samples
        self.item_bytes = recorder.item_bytes
        self._batch = {
            storage for storage, source in recorder.sources.items() if source.from_batch and source.segment < 0
        }
        for storage, source in [*recorder.sources.items(), *((-1, one) for one in recorder.closed)]:
            self._add(storage, source)

    def outside(self, link: Link) -> set[int]:
        """Memory of the link's calls that others wrote or read."""
        return self._touched[link.place] | self._batch

    def own_elements(self, copy: Segment, original: Segment) -> float:
        """What a copy saves of its inputs beyond what its original does of its own."""
        saved = {one.storage: one.elements for one in original.saved}
        return sum(
            saved.get(theirs, 0.0) * ((theirs in self.passing) - (mine in self.passing))
            for mine, theirs in zip(copy.inputs, original.inputs, strict=True)
        )

    def _add(self, storage: int, source: Source) -> None:
        written = self.place[source.segment]
        readers = {self.place[number] for number in source.uses} - {written}
        if not readers:
            return
        views = {view for used in source.uses.values() for view in used}
        size = min(sum(prod(view.shape) for view in views), source.num_elements) / self.num_samples
        last = max(readers)
        for place in range(max(written, 0), last):
            self.boundary[place] += size
        for place in range(written + 1, last):
            self.carried[place] += size
        self.received[last] += size
        for place in {written, *readers} - {-1}:
            self._touched[place].add(storage)
        if len(readers) > 1:
            self.passing.add(storage)
