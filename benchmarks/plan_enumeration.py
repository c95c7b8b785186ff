"""Every plan of a small instance, tried one by one: the truth that `plan_optimality` holds the search against.

The space: one stage, or several under 1F1B, GPipe, zero-bubble or interleaved with 2 or 4 chunks; every cut; each stage
on any replicas of any kinds with a tensor-parallel degree of a power of two inside a node; sequence parallelism, ZeRO 0
to 3 (under zero-bubble 0 and 1), recomputation and offload per stage. In every round the same samples go through all
stages, shared by the replicas so that the slowest takes least; rounds are powers of two. One stage without ZeRO 2 and 3
also with shares and micro-batches (powers of two) of its own per kind.

It is straightforward: every sequence of shapes, every cut, and of the options of a stage all that are not worse than
another in every pass and in the tail (a step grows with each of them), each simulated as `predict` does. What cannot be
faster than the best so far is left out, by bounds that hold for every plan left out:

    one micro-batch's way through the whole chain                                <= step
    its way to a stage and back, which takes a chunk's part + that stage's work  <= step

where zero-bubble may put the parameters' gradients off, and a stage that is not yet fixed counts without recomputation
and collectives. It shares no code with the search but the cost model and the links of groups.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.efficiency import fitted
from heliostat.placement.ground import Ground, Shape, StageHardware
from heliostat.placement.memory import rank_memory, replica_memory
from heliostat.placement.schedule import Schedule, StageTimes, most_in_flight, order, simulate
from heliostat.placement.stage_time import PassTime, StageLinks, StageTimer, syncs_inside
from heliostat.placement.step_time import optimizer_s, pass_times, predict_step, slowest_pass, sync_s
from heliostat.placement.strategy import Execution, Recompute, ReplicaShare, StageStrategy, Strategy, Zero
from heliostat.placement.workload import Block, WorkloadProfile

INFINITE = float("inf")
BETTER = 1 - 1e-9
"""Part of the best step time that a better plan has at most."""
Shares = tuple[tuple[int, ...], ...]


class Way(NamedTuple):
    """How a stage runs."""

    sequence_parallel: bool
    recompute: Recompute
    zero: Zero
    offload: bool


class Option(NamedTuple):
    """A stage's times, its tail, and what runs so."""

    forward_s: float
    backward_s: float
    weight_s: float
    sent_s: float
    tail_s: float
    stage: StageStrategy

    @property
    def least(self) -> "Least":
        """Exactly."""
        return Least(self.forward_s + self.backward_s + self.weight_s, self.forward_s, self.weight_s)

    def is_no_worse_than(self, other: "Option") -> bool:
        """In everything."""
        return all(ours <= theirs for ours, theirs in zip(self[:5], other[:5], strict=True))


class Least(NamedTuple):
    """What a stage takes of one round at least."""

    work_s: float
    forward_s: float
    weight_s: float
    """What zero-bubble puts off: at most."""


class Style(NamedTuple):
    """A schedule."""

    schedule: Schedule
    chunks: int = 1


PLAIN = Way(sequence_parallel=False, recompute="none", zero=0, offload=False)


class Enumeration:
    """Of one instance."""

    def __init__(
        self, workload: WorkloadProfile, cluster: ClusterSpec, global_batch: int, best_s: float = INFINITE
    ) -> None:
        """Begin.

        Args:
            workload: what is run.
            cluster: where.
            global_batch: samples per step.
            best_s: step time of a plan that is known already; only better ones are looked for.
        """
        self.workload, self.batch = workload, global_batch
        self.ground = Ground(cluster)
        self.limits = dict(zip(self.ground.kinds, self.ground.memory_bytes, strict=True))
        self.execution, self.timer = Execution(), StageTimer(fitted().shared)
        self.best_s, self.best = best_s, ""
        """The best plan in words; empty if none is better than what was known."""
        self.num_plans = 0
        """Whose step time was reckoned."""
        self.shapes = self._shapes()
        self._options: dict[tuple[object, ...], list[Option]] = {}
        self._shares: dict[tuple[Shape, int], Shares] = {}
        self._passes: dict[tuple[object, ...], list[list[Least]]] = {}
        self._least: dict[tuple[int, int], list[float]] = {}

    def run(self) -> None:
        """Find the best."""
        for shape in self.shapes:
            self._own_rounds(shape)
        size = 1
        while size <= self.batch:
            for shapes in self._sequences(size):
                self._try_shapes(shapes, size)
            size *= 2

    # shapes and their sequences

    def _shapes(self) -> list[Shape]:
        counts = [range(many + 1) for many in self.ground.num_devices]
        return [
            Shape(one, tensor)
            for tensor in (1, 2, 4, 8)
            for one in product(*counts)
            if any(one) and self._packs([Shape(one, tensor)])
        ]

    def _packs(self, shapes: Sequence[Shape]) -> bool:
        """Whether the groups find room inside nodes: tried by hand, the largest first."""
        for kind, members in enumerate(self.ground.members):
            if sum(shape.counts[kind] * shape.tensor for shape in shapes) > self.ground.num_devices[kind]:
                return False
            if all(shape.tensor == 1 for shape in shapes):
                continue
            free = [len(indices) for _, indices in members]
            for group in sorted((shape.tensor for shape in shapes for _ in range(shape.counts[kind])), reverse=True):
                place = next((at for at, left in enumerate(free) if left >= group), None)
                if place is None:
                    return False
                free[place] -= group
        return True

    def _sequences(self, size: int) -> Iterator[list[Shape]]:
        """All orders of shapes that find room together and may be fast enough."""
        usable = [shape for shape in self.shapes if shape.width <= size]

        def longer(now: list[Shape], reach: int) -> Iterator[list[Shape]]:
            for shape in usable:
                more = [*now, shape]
                end = self._reach(shape, size, reach)
                if not self._packs(more) or not self._may_finish(more, size, end):
                    continue
                if end == self.workload.num_blocks:
                    yield more
                if len(more) < self.workload.num_blocks:
                    yield from longer(more, end)

        yield from longer([], 0)

    def _reach(self, shape: Shape, size: int, first: int) -> int:
        """How far a stage on `shape` from block `first` gets that is not slower than the best plan."""
        limit_s, row = self.best_s / self._rounds(size), self._bare(shape, size)[first]
        end = first
        while end < self.workload.num_blocks and row[end - first].work_s <= limit_s:
            end += 1
        return end

    def _may_finish(self, shapes: list[Shape], size: int, end: int) -> bool:
        """Whether the devices that are left could do the blocks from `end` on as fast as the best plan."""
        left = list(self.ground.num_devices)
        for shape in shapes:
            left = [have - count * shape.tensor for have, count in zip(left, shape.counts, strict=True)]
        every = [self._least_s(kind, size) for kind in range(len(left))]
        work = [min(column) for column in zip(*every, strict=True)]
        rest, place = 0.0, 0
        for block, seconds in zip(self.workload.blocks, work, strict=True):
            rest += seconds * max(0, place + block.count - max(end, place))
            place += block.count
        rate = sum(
            many * max(w / one for w, one in zip(work, own, strict=True)) for many, own in zip(left, every, strict=True)
        )
        return rest <= rate * self.best_s / self._rounds(size) if rest else True

    def _least_s(self, kind: int, size: int) -> list[float]:
        """Device seconds of a round of each sort of block at least: in the best micro-batch, without collectives."""
        key = (kind, size)
        if key not in self._least:
            found = [INFINITE] * len(self.workload.blocks)
            for micro, sequence, tensor in product(range(1, size + 1), (False, True), (1, 2, 4, 8)):
                way = PLAIN._replace(sequence_parallel=sequence)
                stage = self._stage(Shape((1,), tensor), ((micro,),), 0, 1, way, 1)
                for at, block in enumerate(self.workload.blocks):
                    one = self._pass(((block, 1),), stage, micro, kind)
                    found[at] = min(found[at], tensor * size / micro * (one.forward_s + one.backward_s))
            self._least[key] = found
        return self._least[key]

    def _bare(self, shape: Shape, size: int) -> list[list[Least]]:
        """Of every part, by its first block and its length less 1, seconds of a round without collectives."""
        key = (shape, size)
        if key not in self._passes:
            num_blocks = self.workload.num_blocks
            shares = self._shares_of(shape, size)
            self._passes[key] = [
                [self._bare_part(shape, shares, first, end) for end in range(first + 1, num_blocks + 1)]
                for first in range(num_blocks + 1)
            ]
        return self._passes[key]

    def _bare_part(self, shape: Shape, shares: Shares, first: int, end: int) -> Least:
        blocks, work_s, every = self.workload.part(first, end), INFINITE, list[PassTime]()
        for sequence in (False, True) if shape.tensor > 1 else (False,):
            stage = self._stage(shape, shares, first, end, PLAIN._replace(sequence_parallel=sequence), 1)
            passes = [self._pass(blocks, stage, max(own), kind) for kind, own in enumerate(shares) if own]
            work_s = min(work_s, max(one.forward_s + one.backward_s for one in passes))
            every += passes
        return Least(work_s, min(one.forward_s for one in every), max(one.weight_s for one in every))

    def _pass(self, blocks: tuple[tuple[Block, int], ...], stage: StageStrategy, micro: int, kind: int) -> PassTime:
        return self.timer.pass_time(blocks, stage, micro, self.ground.speeds[kind], StageLinks(), self.execution)

    # cuts, schedules and options

    def _try_shapes(self, shapes: list[Shape], size: int) -> None:
        """All cuts, schedules and options on `shapes`."""
        rounds = self._rounds(size)
        bare = [self._bare(shape, size) for shape in shapes]
        hardware = None
        for style in self._styles(len(shapes), rounds):
            for cuts in self._cuts(bare, style, rounds):
                hardware = hardware or self.ground.hardware(shapes)
                self._try_cuts(shapes, hardware, cuts, style, size)

    def _styles(self, num_stages: int, rounds: int) -> list[Style]:
        if num_stages == 1:
            return [Style("none")]
        styles = [Style("1f1b"), Style("gpipe"), Style("zero-bubble")]
        return styles + ([Style("interleaved", 2), Style("interleaved", 4)] if rounds % num_stages == 0 else [])

    def _cuts(self, bare: Sequence[list[list[Least]]], style: Style, rounds: int) -> Iterator[tuple[int, ...]]:
        """Where stages may begin and end so that the bounds allow a better plan."""
        num_blocks, many = self.workload.num_blocks, len(bare)

        def longer(cuts: tuple[int, ...], times: tuple[Least, ...]) -> Iterator[tuple[int, ...]]:
            place, first = len(times), cuts[-1]
            if place == many:
                yield cuts
                return
            least, left = first + style.chunks, (many - place - 1) * style.chunks
            for end in range(least if left else max(least, num_blocks), num_blocks - left + 1):
                more = (*times, bare[place][first][end - first - 1])
                if _bound_s(more, style, rounds) >= self.best_s * BETTER:
                    break
                yield from longer((*cuts, end), more)

        yield from longer((0,), ())

    def _try_cuts(
        self,
        shapes: Sequence[Shape],
        hardware: Sequence[StageHardware],
        cuts: tuple[int, ...],
        style: Style,
        size: int,
    ) -> None:
        """All options of these stages."""
        rounds, many = self._rounds(size), len(shapes)
        columns: list[list[Option]] = []
        parts = zip(shapes, pairwise(cuts), strict=True)
        bare = [self._bare(shape, size)[first][end - first - 1] for shape, (first, end) in parts]
        for place, (first, end) in enumerate(pairwise(cuts)):
            flight = 1 if many == 1 else most_in_flight(order(style.schedule, place, many, rounds, style.chunks))
            ends = (place == 0) + 2 * (place == many - 1)
            key = (shapes[place], size, first, end, ends, many > 1, style, flight, hardware[place].links)
            if key not in self._options:
                strategy = self._of_many(style, many)
                self._options[key] = self._stage_options(
                    (shapes[place], size, first, end), hardware[place], strategy, place, flight / style.chunks
                )
            columns.append(self._options[key])
            if not columns[-1]:
                return
            bare[place] = _least_of(columns[-1])
            if _bound_s(bare, style, rounds) >= self.best_s * BETTER:
                return
        self._try_options(columns, (), style, rounds)

    def _of_many(self, style: Style, many: int) -> Strategy:
        """A plan of `many` stages, to put the one in question into."""
        bare = StageStrategy.model_construct(first_block=0, end_block=1, replicas=())
        return Strategy.model_construct(
            global_batch=self.batch, schedule=style.schedule, chunks=style.chunks, execution=self.execution,
            stages=(bare,) * many,
        )  # fmt: skip

    def _stage_options(
        self, part: tuple[Shape, int, int, int], place: StageHardware, plan: Strategy, number: int, flight: float
    ) -> list[Option]:
        """All options of one stage that fit and are not worse than another in everything."""
        shape, size, first, end = part
        shares, rounds = self._shares_of(shape, size), self._rounds(size)
        found: list[Option] = []
        for way in _ways(shape):
            if plan.schedule == "zero-bubble" and way.zero >= 2:
                continue
            stage = self._stage(shape, shares, first, end, way, rounds)
            stages = (*plan.stages[:number], stage, *plan.stages[number + 1 :])
            strategy = plan.model_copy(update={"stages": stages})
            new = self._timed(stage, place, strategy)
            if any(old.is_no_worse_than(new) for old in found):
                continue
            uses = ((one, rank_memory(self.workload, strategy, stage, one, flight)) for one in set(stage.replicas))
            if all(use.total <= self.limits[one.device_kind] for one, use in uses):
                found = [old for old in found if not new.is_no_worse_than(old)] + [new]
        return found

    def _timed(self, stage: StageStrategy, place: StageHardware, strategy: Strategy) -> Option:
        one, share = slowest_pass(self.workload, stage, place, strategy, self.timer)
        times = pass_times(one, share, self.workload, stage, place, strategy)
        tail_s = sync_s(self.workload, stage, place, strategy, one)
        tail_s += optimizer_s(self.workload, stage, place, strategy, self.timer)
        return Option(times.forward_s, times.backward_s, times.weight_s, times.send_forward_s, tail_s, stage)

    def _try_options(
        self, columns: Sequence[list[Option]], chosen: tuple[Option, ...], style: Style, rounds: int
    ) -> None:
        """All combinations of the stages' options that begin with `chosen`."""
        if len(chosen) == len(columns):
            self._try_plan(chosen, style, rounds)
            return
        rest = [_least_of(column) for column in columns[len(chosen) + 1 :]]
        known = [one.least for one in chosen]
        for option in columns[len(chosen)]:
            tail_s = max(one.tail_s for one in (*chosen, option))
            bound_s = _bound_s([*known, option.least, *rest], style, rounds)
            if bound_s + tail_s < self.best_s * BETTER:
                self._try_options(columns, (*chosen, option), style, rounds)

    def _try_plan(self, options: tuple[Option, ...], style: Style, rounds: int) -> None:
        self.num_plans += 1
        step_s = max(one.tail_s for one in options)
        if len(options) == 1:
            step_s += rounds * options[0].least.work_s
        else:
            times = [[_chunk(one, style.chunks)] * style.chunks for one in options]
            step_s += simulate(style.schedule, times, rounds).total_s
        if step_s < self.best_s * BETTER:
            self.best_s = step_s
            stages = ", ".join(describe(one.stage) for one in options)
            self.best = f"{style.schedule} x{style.chunks} M{rounds} {stages}"

    # shares

    def _rounds(self, size: int) -> int:
        return -(-self.batch // size)

    def _shares_of(self, shape: Shape, size: int) -> Shares:
        """Samples of a round per replica: of all ways to divide them by kind the one whose slowest takes least."""
        key = (shape, size)
        if key not in self._shares:
            kinds = [kind for kind, count in enumerate(shape.counts) if count]
            splits = []
            for split in product(*(range(shape.counts[kind], size + 1) for kind in kinds)):
                if sum(split) == size:
                    worst = max(
                        self._plain_s(kind, shape, -(-samples // shape.counts[kind]))
                        for kind, samples in zip(kinds, split, strict=True)
                    )
                    splits.append((worst, split))
            best = dict(zip(kinds, min(splits)[1], strict=True))
            self._shares[key] = tuple(
                _spread(best[kind], count) if count else () for kind, count in enumerate(shape.counts)
            )
        return self._shares[key]

    def _plain_s(self, kind: int, shape: Shape, micro: int) -> float:
        """The whole chain on one replica."""
        stage = self._stage(shape, ((micro,),), 0, self.workload.num_blocks, PLAIN, 1)
        blocks = self.workload.part(0, self.workload.num_blocks)
        links = self.ground.typical_links(shape)
        one = self.timer.pass_time(blocks, stage, micro, self.ground.speeds[kind], links, self.execution)
        return one.forward_s + one.backward_s

    def _stage(self, shape: Shape, shares: Shares, first: int, end: int, way: Way, rounds: int) -> StageStrategy:
        return StageStrategy.model_construct(
            first_block=first, end_block=end, tensor_parallel=shape.tensor, context_parallel=1, **way._asdict(),
            replicas=tuple(
                self._share(kind, rounds * micro, micro) for kind, own in enumerate(shares) for micro in own
            ),
        )  # fmt: skip

    def _share(self, kind: int, samples: int, micro: int) -> ReplicaShare:
        return ReplicaShare(device_kind=self.ground.kinds[kind], num_samples=samples, micro_batch=micro)

    # one stage whose replicas have rounds of their own

    def _own_rounds(self, shape: Shape) -> None:
        """Every division of the samples by kind, every micro-batch by kind, every option."""
        kinds = [kind for kind, count in enumerate(shape.counts) if count]
        place = self.ground.hardware([shape])[0]
        splits = [
            split
            for split in product(*(range(shape.counts[kind], self.batch + 1) for kind in kinds))
            if sum(split) == self.batch
        ]
        for way in _ways(shape):
            ones = tuple((1,) * count for count in shape.counts)
            stage = self._stage(shape, ones, 0, self.workload.num_blocks, way, 1)
            if syncs_inside(stage, self.execution):
                continue
            costs = [self._micro_batches(stage, kind, place) for kind in kinds]
            for split in splits if all(costs) else ():
                most = [-(-samples // shape.counts[kind]) for kind, samples in zip(kinds, split, strict=True)]
                each = [
                    min((-(-samples // micro) * cost, micro) for micro, cost in own.items())
                    for samples, own in zip(most, costs, strict=True)
                ]
                if max(seconds for seconds, _ in each) < self.best_s * BETTER:
                    replicas = tuple(
                        self._share(kind, own, min(micro, own))
                        for kind, samples, (_, micro) in zip(kinds, split, each, strict=True)
                        for own in _spread(samples, shape.counts[kind])
                    )
                    self._try_division(place, stage.model_copy(update={"replicas": replicas}))

    def _micro_batches(self, stage: StageStrategy, kind: int, place: StageHardware) -> dict[int, float]:
        """The micro-batches that fit on `kind`, with their seconds."""
        strategy = Strategy.model_construct(
            global_batch=self.batch, stages=(stage,), schedule="none", chunks=1, execution=self.execution
        )
        blocks = self.workload.part(0, self.workload.num_blocks)
        found = {}
        for micro in (1 << at for at in range(self.batch.bit_length())):
            use = rank_memory(self.workload, strategy, stage, self._share(kind, micro, micro), 1)
            if use.total <= self.ground.memory_bytes[kind]:
                speed = self.ground.speeds[kind]
                one = self.timer.pass_time(blocks, stage, micro, speed, place.links, self.execution)
                found[micro] = one.forward_s + one.backward_s
        return found

    def _try_division(self, place: StageHardware, stage: StageStrategy) -> None:
        self.num_plans += 1
        strategy = Strategy(global_batch=self.batch, execution=self.execution, stages=(stage,))
        step = predict_step(self.workload, strategy, [place], self.timer)
        memory = replica_memory(self.workload, strategy, step.in_flight)[0]
        fits = all(use.total <= self.limits[one.device_kind] for use, one in zip(memory, stage.replicas, strict=True))
        if fits and step.step_s < self.best_s * BETTER:
            self.best_s, self.best = step.step_s, f"own rounds {describe(stage)}"


def describe(stage: StageStrategy) -> str:
    """A stage in few words."""
    kinds = [f"{one.device_kind}:{one.num_samples}/{one.micro_batch}" for one in stage.replicas]
    extra = f"tp{stage.tensor_parallel}{'s' if stage.sequence_parallel else ''} z{stage.zero} {stage.recompute}"
    return f"[{stage.end_block - stage.first_block} on {' '.join(kinds)} {extra}{' off' if stage.offload else ''}]"


def _ways(shape: Shape) -> list[Way]:
    sequences = (False, True) if shape.tensor > 1 else (False,)
    recompute: tuple[Recompute, ...] = ("none", "selective", "full")
    zero: tuple[Zero, ...] = (0, 1, 2, 3) if shape.width > 1 else (0,)
    return [Way(*one) for one in product(sequences, recompute, zero, (False, True))]


def _bound_s(stages: Sequence[Least], style: Style, rounds: int) -> float:
    """No plan that begins with these stages is faster."""
    late = style.schedule == "zero-bubble"
    way_s = bound_s = 0.0
    for one in stages:
        bound_s = max(bound_s, way_s + rounds * one.work_s)
        way_s += one.forward_s if late else one.work_s / style.chunks
    return max(bound_s, sum(one.work_s - (one.weight_s if late else 0.0) for one in stages))


def _least_of(column: Sequence[Option]) -> Least:
    every = [option.least for option in column]
    work_s, forward_s = min(one.work_s for one in every), min(one.forward_s for one in every)
    return Least(work_s, forward_s, max(one.weight_s for one in every))


def _spread(samples: int, count: int) -> tuple[int, ...]:
    each, more = divmod(samples, count)
    return (each + 1,) * more + (each,) * (count - more)


def _chunk(one: Option, chunks: int) -> StageTimes:
    return StageTimes(one.forward_s / chunks, one.backward_s / chunks, one.weight_s / chunks, one.sent_s, one.sent_s)
