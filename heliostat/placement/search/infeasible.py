"""Why nothing fits, and the smallest change that would: a pin set free, a smaller batch, more devices. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.efficiency import Efficiencies
from heliostat.placement.search.feasible import fits
from heliostat.placement.search.menu import RECOMPUTE, ZERO
from heliostat.placement.search.space import Space
from heliostat.placement.workload import WorkloadProfile

GIB = 1 << 30
MOST_BYTES = 1024 * GIB
"""More memory than that on one device is not asked for."""
STEP_BYTES = 64 << 20
"""To which the missing bytes are found."""
HALVINGS = 6
"""Of the global batch, that are tried."""
MOST_TIMES, MOST_DEVICES = 64, 5000
"""How many times the devices there are that are tried, and up to how many in all; twice in any case."""
LADDERS: dict[str, tuple[object, ...]] = {"recompute": RECOMPUTE, "zero": ZERO, "offload": (False, True)}
"""Of pins that may be set to something leaner: each value needs less memory than the one before it."""


class Question(NamedTuple):
    """What nothing fits for."""

    workload: WorkloadProfile
    cluster: ClusterSpec
    wanted: Constraints
    constants: Efficiencies | None

    def fits(self) -> bool:
        """Whether anything does."""
        return fits(Space(*self))

    def with_pin(self, name: str, value: object) -> "Question":
        """The same with one pin changed."""
        pins = self.wanted.pins.model_copy(update={name: value})
        return self._replace(wanted=self.wanted.model_copy(update={"pins": pins}))


def explain(workload: WorkloadProfile, cluster: ClusterSpec, space: Space, constants: Efficiencies | None) -> PlanError:
    """The error that tells all of it.

    Args:
        workload: the model.
        cluster: on which nothing fits.
        space: the possibilities of which none does.
        constants: of the cost model.
    """
    question = Question(workload, cluster, space.wanted, constants)
    change = next((words for words, other in _changes(question) if other.fits()), None)
    help_ = f"smallest change that fits: {change}" if change else "use a smaller model or many more devices"
    lacks = _lacking(space)
    if lacks is None:
        return PlanError(
            "no plan can be made as it is pinned",
            got="no amount of memory would do: samples, blocks or devices cannot be divided so",
            next_step=help_,
        )
    kind, missing = lacks
    return PlanError(
        "no plan fits into the memory of the devices",
        where=kind,
        got=f"{kind} lacks {missing / GIB:.2f} GiB ({missing} bytes) on each device",
        next_step=help_,
    )


def _lacking(space: Space) -> tuple[str, int] | None:
    """The kind of device that needs the fewest bytes more, and how many; None if no number is enough."""
    best: tuple[str, int] | None = None
    for kind in space.ground.kinds:

        def is_enough(extra: int, kind: str = kind) -> bool:
            return fits(space.with_more_memory({kind: extra}))

        missing = _least(is_enough, best[1] - STEP_BYTES if best else MOST_BYTES)
        if missing is not None:
            best = kind, missing
    return best


def _least(is_enough: Callable[[int], bool], most: int) -> int | None:
    """The fewest bytes that are enough, to `STEP_BYTES`; None if `most` are not."""
    if most < STEP_BYTES or not is_enough(most):
        return None
    low, high = 0, -(-most // STEP_BYTES)
    while high - low > 1:
        # the answer is nearer to nothing than to a terabyte
        middle = max(low + 1, min((low + high) // 2, 4 * max(low, 4)))
        low, high = (low, middle) if is_enough(middle * STEP_BYTES) else (middle, high)
    return high * STEP_BYTES


def _changes(question: Question) -> Iterator[tuple[str, Question]]:
    """Changes in words, the smallest first, and what the question is then."""
    wanted, pins = question.wanted, question.wanted.pins
    for name, value in pins:
        yield from _of_the_pin(question, name, value)
    for halvings in range(1, HALVINGS + 1):
        batch = wanted.global_batch >> halvings
        if batch:
            smaller = wanted.model_copy(update={"global_batch": batch})
            yield f"global_batch: {batch}", question._replace(wanted=smaller)
    for words, node in _one_more(question):
        more = question.cluster.model_copy(update={"nodes": (*question.cluster.nodes, node)})
        yield words, question._replace(cluster=more)
    bare = wanted.model_copy(update={"pins": Pins(kinds=pins.kinds)})
    times = 2
    while times <= MOST_TIMES and (times == 2 or times * question.cluster.num_devices <= MOST_DEVICES):
        more = _grown(question.cluster, times)
        yield f"{times} times as many nodes", question._replace(cluster=more)
        if pins != bare.pins:
            yield f"{times} times as many nodes, with no part pinned", question._replace(cluster=more, wanted=bare)
        times *= 2


def _of_the_pin(question: Question, name: str, value: object) -> Iterator[tuple[str, Question]]:
    default = Pins.model_fields[name].default
    if value == default:
        return
    if name in LADDERS:
        ladder = LADDERS[name]
        for other in ladder[ladder.index(value) + 1 :]:
            yield f"{name}: {str(other).lower()}", question.with_pin(name, other)
        return
    if name == "micro_batch" and isinstance(value, int):
        for halvings in range(1, value.bit_length()):
            yield f"{name}: {value >> halvings}", question.with_pin(name, value >> halvings)
    shown = ", ".join(part.source for part in question.wanted.pins.parts) if name == "parts" else value
    yield f"leave `{name}` open (it is pinned to {shown})", question.with_pin(name, default)


def _one_more(question: Question) -> Iterator[tuple[str, Node]]:
    """One device more, then one node more, of each kind."""
    pinned = question.wanted.pins.kinds
    for whole in (False, True):
        seen = set[str]()
        for node in question.cluster.nodes:
            for device in node.devices:
                if device.kind not in seen and (pinned is None or device.kind in pinned):
                    seen.add(device.kind)
                    words = f"one more {'node with ' if whole else ''}{device.kind}"
                    yield words, _twin(node if whole else node.part([device.index]), "more")


def _grown(cluster: ClusterSpec, times: int) -> ClusterSpec:
    nodes = [_twin(node, str(copy)) if copy else node for copy in range(times) for node in cluster.nodes]
    return cluster.model_copy(update={"nodes": tuple(nodes)})


def _twin(node: Node, name: str) -> Node:
    return node.model_copy(update={"node_id": f"{node.node_id}+{name}", "uuids": ()})
