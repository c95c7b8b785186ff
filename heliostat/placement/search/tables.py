"""What every part of the chain costs on every shape of the menu, for every option, in arrays. Pure.

Axes: shapes, parts of the chain, options. Times follow `predict` with the links of a stage that stands at the beginning
of its nodes; the finalists are predicted exactly, so these only choose them.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np

from heliostat.placement.collective_time import Collective, GroupLinks, collective_s
from heliostat.placement.constraints import Pins
from heliostat.placement.device_time import element_bytes
from heliostat.placement.ground import Shape
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.allowed import Allowed
from heliostat.placement.search.chain import Floats, Ints
from heliostat.placement.search.costs import Costs, Option
from heliostat.placement.search.menu import goes_with, suits
from heliostat.placement.search.shares import Shares, share_round
from heliostat.placement.step_time import HOST_LINK_BYTES_PER_S


class Choice(NamedTuple):
    """The best option of every shape and part, where a stage holds so many micro-batches at once."""

    work_s: Floats
    """Seconds of one round; infinite where nothing fits."""
    fill_s: Floats
    """What it adds to the way of one round through the pipeline, without handing on."""
    tail_s: Floats
    """Synchronisation and optimizer."""
    option: Ints


class Tables:
    """All shapes for one size of round."""

    def __init__(
        self,
        costs: Costs,
        shapes: Sequence[tuple[Shape, Shares]],
        round_size: int,
        num_rounds: int,
        options: tuple[Option, ...],
        pins: Pins,
        *,
        few: bool,
    ) -> None:
        self.costs, self.chain = costs, costs.chain
        self.shapes = [shape for shape, _ in shapes]
        self.round_size, self.num_rounds = round_size, num_rounds
        self.options, self.pins, self.few = options, pins, few
        self.allowed = Allowed(self.chain, costs.ground.kinds, pins)
        size = (len(shapes), len(self.chain.counts), len(options))
        self.forward_s, self.backward_s, self.weight_s = np.zeros(size), np.zeros(size), np.zeros(size)
        self.tail_s = np.zeros(size)
        self.hop_s = np.zeros((2, *size))
        """To hand on what the part puts out: between nodes, and inside one."""
        self.near = costs.ground.sharing(self.shapes)
        """Whether a stage and the one that follows it are in one node."""
        self.most_in_flight = np.full(size, -1.0)
        self.single_fits = np.zeros(size, dtype=bool)
        self.device_seconds = np.full((len(costs.ground.kinds), len(self.chain.blocks)), np.inf)
        """By kind and sort of block: of one round, if its devices did it all, at least."""
        self.num_too_large = Counter[str]()
        """Of each kind, how many stages its memory does not hold with a single micro-batch."""
        for number, (shape, shares) in enumerate(shapes):
            self._fill(number, shape, shares)
        self._choices: dict[tuple[float, bool, str, int], tuple[Choice, Choice]] = {}

    def choices(self, in_flight: float, *, single: bool, schedule: Schedule, chunks: int) -> tuple[Choice, Choice]:
        """The option that is best where the stage is the slowest, and the one that is elsewhere."""
        key = (in_flight, single, schedule, chunks)
        if key not in self._choices:
            goes = [single or goes_with(schedule, option.zero) for option in self.options]
            fits = (self.single_fits if single else self.most_in_flight >= in_flight) & np.array(goes)
            work = np.where(fits, self.forward_s + self.backward_s, np.inf)
            late = schedule == "zero-bubble"
            fill = np.maximum(work - 2 * self.weight_s, 0.0) if late else work / chunks
            many = self.num_rounds
            self._choices[key] = (
                self._best(many * work + self.tail_s, work, fill),
                self._best(fill + 2 * self.hop_s[0] + self.tail_s + (1e-6 * many) * work, work, fill),
            )
        return self._choices[key]

    def _best(self, measure: Floats, work: Floats, fill: Floats) -> Choice:
        column = np.argmin(measure, axis=2)[:, :, None]
        work_s, fill_s, tail_s = (np.take_along_axis(one, column, axis=2)[:, :, 0] for one in (work, fill, self.tail_s))
        return Choice(work_s, fill_s, tail_s, column[:, :, 0].astype(np.int64))

    def _fill(self, number: int, shape: Shape, shares: Shares) -> None:
        costs, chain = self.costs, self.chain
        links = costs.ground.typical_links(shape)
        columns = [place for place, option in enumerate(self.options) if suits(option, shape, self.pins, few=self.few)]
        options = tuple(self.options[place] for place in columns)
        room = costs.room(shape.tensor, options, shape.width, chain)
        self.most_in_flight[number][:, columns] = np.inf
        self.single_fits[number][:, columns] = True
        for kind, own in enumerate(shares):
            if not own:
                continue
            micro_batch = max(own)
            times = costs.all_times(kind, shape.tensor, options, micro_batch, links)
            least = (times[0] + times[1]).min(axis=1) * shape.tensor * sum(map(sum, shares)) / micro_batch
            self.device_seconds[kind] = np.minimum(self.device_seconds[kind], least)
            new = [chain.counts @ one for one in times]
            passes = self.forward_s, self.backward_s, self.weight_s
            more = new[0] + new[1] > passes[0][number][:, columns] + passes[1][number][:, columns]
            for kept, one in zip(passes, new, strict=True):
                kept[number][:, columns] = np.where(more, one, kept[number][:, columns])
            fits = room.holds_one(micro_batch, costs.ground.memory_bytes[kind])
            self.num_too_large[costs.ground.kinds[kind]] += int(np.count_nonzero(~fits))
            self.single_fits[number][:, columns] &= fits
            most = room.in_flight(micro_batch, costs.ground.memory_bytes[kind])
            self.most_in_flight[number][:, columns] = np.minimum(self.most_in_flight[number][:, columns], most)
        self._set_tail(number, shape, links.data)
        self._set_hop(number, shape, max(max(own) for own in shares if own))

    def _set_tail(self, number: int, shape: Shape, data: GroupLinks) -> None:
        chain, execution = self.chain, self.costs.execution
        held = chain.counts @ self.costs.parameters(shape.tensor)
        held = held + chain.copies * chain.workload.tied_parameters / shape.tensor
        held += chain.copies * (chain.workload.tied_parameters / shape.tensor)
        backward = self.backward_s[number]
        whole = _seconds("all_reduce", held * execution.gradient_bytes, data)
        parted = _seconds("reduce_scatter", held * execution.gradient_bytes, data)
        parted = parted + _seconds("all_gather", held * execution.parameter_bytes, data)
        optimizer = np.max(
            [chain.counts @ self.costs.updates(kind, shape.tensor) for kind, count in enumerate(shape.counts) if count],
            axis=0,
        )
        host = held * (execution.gradient_bytes + 2) / HOST_LINK_BYTES_PER_S
        for column, option in enumerate(self.options):
            tail = (host if option.offload else optimizer) / (data.size if option.zero else 1)
            if data.size > 1 and not self.costs.gathers(option):
                sync = parted if option.zero else whole
                if execution.overlap_gradients:
                    sync = np.maximum(sync - backward[:, column], sync / chain.lengths)
                tail = tail + sync
            self.tail_s[number, :, column] = tail

    def _set_hop(self, number: int, shape: Shape, micro_batch: int) -> None:
        last = np.array([block.boundary_elements for block in self.chain.blocks])[self.chain.last_sorts]
        sent = last * (micro_batch * float(element_bytes(self.costs.execution.dtype)))
        divided = np.array([shape.tensor if option.sequence_parallel else 1.0 for option in self.options])
        kind = shape.first_kind
        for inside in (False, True):
            links = self.costs.ground.pair_links(kind, kind, inside=inside)
            self.hop_s[int(inside), number] = _seconds("send_recv", sent[:, None] / divided, links)

    @cached_property
    def tied_s(self) -> Floats:
        """What the first or last stage on one shape (rows) takes to add the gradients of a tied embedding.

        Columns: the shape at the other end.
        """
        keys = [(shape.first_kind, shape.tensor) for shape in self.shapes]
        kinds = [kind for kind, _ in keys]
        known = {(one, kind): self._tied_s(*one, kind) for one, kind in product(sorted(set(keys)), sorted(set(kinds)))}
        return np.array([[known[one, other] for other in kinds] for one in keys])

    def _tied_s(self, kind: int, tensor: int, other: int) -> float:
        ground = self.costs.ground
        links = ground.pair_links(kind, other, inside=ground.ends_may_meet(kind, other))
        table = self.chain.workload.tied_parameters / tensor
        return collective_s("all_reduce", table * self.costs.execution.gradient_bytes, links)


def _seconds(operation: Collective, num_bytes: Floats, links: GroupLinks) -> Floats:
    """A collective takes a fixed time and more for each byte."""
    if links.size == 1:
        return np.zeros(num_bytes.shape)
    once = collective_s(operation, 1.0, links)
    per_byte = (collective_s(operation, 1e9 + 1.0, links) - once) / 1e9
    return np.where(num_bytes > 0, once + per_byte * num_bytes, 0.0)


def shares_of(costs: Costs, shape: Shape, round_size: int) -> Shares | None:
    """Samples of a round for every replica of `shape`, by kind; None if there are too few."""
    most = min(round_size, 1 << (2 * round_size // shape.width).bit_length())
    while True:
        shares = _shared(costs, shape, round_size, most)
        if shares is None or most >= round_size or max(map(max, filter(None, shares))) < most:
            return shares
        most = min(round_size, 2 * most)


def _shared(costs: Costs, shape: Shape, round_size: int, most: int) -> Shares | None:
    links = costs.ground.typical_links(shape)
    return share_round(shape.counts, round_size, lambda kind: costs.whole_s(kind, shape.tensor, most, links))
