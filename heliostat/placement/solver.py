"""From a plan to exact devices, without side effects.

Nodes: as few as possible, and among the nodes that do, the one that is left with the fewest free devices (best fit),
because Ray's own choice is the emptiest node and leaves no room for a large gang (docs/decisions.md). A node counts by
how many whole replicas it holds, so that tensor-parallel ranks share a node where that can be.

On these nodes the stages with the largest replicas choose first. A stage takes one node where it fits, then replicas
take one node each, and a replica is torn over nodes only if no node holds it. Ranks are numbered node by node.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlacementError
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.placement import Placement, RankPlacement
from heliostat.placement.strategy import Strategy


class _Group(NamedTuple):
    """The ranks of one replica."""

    kind: str
    roles: tuple[int, ...]
    """By their rank in the plan."""

    @property
    def size(self) -> int:
        """How many."""
        return len(self.roles)


class _Seat(NamedTuple):
    """A device that a rank has got."""

    node: int
    device_index: int
    role: int
    kind: str


def solve(plan: ParallelPlan, cluster: ClusterSpec) -> Placement:
    """Choose a device for every rank of a plan.

    Args:
        plan: any.
        cluster: the devices that are free now.

    Raises:
        PlacementError: there are fewer free devices of some kind than the plan needs.

    """
    stages = _groups(plan.strategy)
    _check_supply(stages, cluster)
    nodes = _choose_nodes(stages, cluster)
    seats = _Seats(nodes)
    for stage in sorted(stages, key=lambda stage: (-stage[0].size, -len(stage))):
        seats.give(stage)
    ranks = tuple(
        RankPlacement(
            rank=rank,
            role=seat.role,
            node_id=nodes[seat.node].node_id,
            device_index=seat.device_index,
            device_kind=seat.kind,
        )
        for rank, seat in enumerate(sorted(seats.taken))
    )
    used = len({seat.node for seat in seats.taken})
    return Placement(ranks=ranks, reason=f"{len(ranks)} ranks on {used} of {len(cluster.nodes)} nodes, best fit")


def _groups(strategy: Strategy) -> list[list[_Group]]:
    """The replicas of every stage; ranks count stage by stage, replica by replica, tensor-parallel ones together."""
    found: list[list[_Group]] = []
    begin = 0
    for stage in strategy.stages:
        size = stage.ranks_per_replica
        found.append(
            [
                _Group(replica.device_kind, tuple(range(begin + at * size, begin + (at + 1) * size)))
                for at, replica in enumerate(stage.replicas)
            ]
        )
        begin += stage.num_ranks
    return found


def _check_supply(stages: Sequence[Sequence[_Group]], cluster: ClusterSpec) -> None:
    free = cluster.count_by_kind()
    for kind, count in _devices(chain.from_iterable(stages)).items():
        if free.get(kind, 0) < count:
            raise PlacementError(
                f"the plan needs {count} free devices of kind {kind!r}",
                got=f"{free.get(kind, 0)} free; free now: {free or 'none'}",
                causes=("another job or a deployment holds the devices", "a node was lost after the plan was made"),
                next_step="free devices (`heliostat status`, `heliostat down`), or run again to plan for what is left",
            )


def _choose_nodes(stages: Sequence[Sequence[_Group]], cluster: ClusterSpec) -> list[Node]:
    """Nodes that hold the plan, in the order in which they were chosen."""
    missing = Counter((group.kind, group.size) for stage in stages for group in stage)
    candidates, chosen = list(cluster.nodes), list[Node]()
    while missing.total():
        node = min(candidates, key=lambda node: _preference(node, missing))
        held = _held(node, missing)
        if not held.total():
            break  # what is left is torn over nodes
        candidates.remove(node)
        chosen.append(node)
        missing -= held
    wanted = _devices(chain.from_iterable(stages))
    while lacking := wanted - Counter(device.kind for node in chosen for device in node.devices):
        singles = Counter({(kind, 1): count for kind, count in lacking.items()})
        chosen.append(min(candidates, key=lambda node: _preference(node, singles)))
        candidates.remove(chosen[-1])
    return chosen


def _preference(node: Node, missing: Counter[tuple[str, int]]) -> tuple[int, int, str]:
    """Most useful devices first, then the fewest devices left over, then the name: deterministic."""
    useful = sum(size * count for (_, size), count in _held(node, missing).items())
    return -useful, len(node.devices) - useful, node.node_id


def _held(node: Node, missing: Counter[tuple[str, int]]) -> Counter[tuple[str, int]]:
    """How many whole groups of each kind and size the node holds, the largest first."""
    free = Counter(device.kind for device in node.devices)
    found = Counter[tuple[str, int]]()
    for kind, size in sorted(missing, key=lambda one: (-one[1], one[0])):
        found[kind, size] = min(missing[kind, size], free[kind] // size)
        free[kind] -= size * found[kind, size]
    return +found


def _devices(some: Iterable[_Group]) -> Counter[str]:
    """How many devices of each kind."""
    return sum((Counter({group.kind: group.size}) for group in some), Counter[str]())


class _Seats:
    """The free devices of the chosen nodes, given away one by one."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.taken: list[_Seat] = []
        self._free: list[dict[str, list[int]]] = []
        for node in nodes:
            here: dict[str, list[int]] = {}
            for device in sorted(node.devices, key=lambda device: device.index):
                here.setdefault(device.kind, []).append(device.index)
            self._free.append(here)

    def give(self, stage: Sequence[_Group]) -> None:
        """Seat one stage: on one node, else each replica on one, else wherever there is room."""
        together = self._fullest_with(_devices(stage))
        last = together
        for group in stage:
            if together is None:
                wanted = Counter({group.kind: group.size})
                last = last if last is not None and self._holds(last, wanted) else self._emptiest_with(wanted)
            self._seat(group, self._places(group.kind) if last is None else [last])

    def _seat(self, group: _Group, places: Sequence[int]) -> None:
        roles = iter(group.roles)
        for place in places:
            free = self._free[place].get(group.kind, [])
            while free and (role := next(roles, None)) is not None:
                self.taken.append(_Seat(place, free.pop(0), role, group.kind))
        assert next(roles, None) is None, "the nodes were chosen to hold all ranks"

    def _places(self, kind: str) -> list[int]:
        """All nodes, those with the most free devices of `kind` first."""
        return sorted(range(len(self._free)), key=lambda place: (-len(self._free[place].get(kind, [])), place))

    def _fullest_with(self, wanted: Counter[str]) -> int | None:
        places = [place for place in range(len(self._free)) if self._holds(place, wanted)]
        return min(places, key=lambda place: (sum(map(len, self._free[place].values())), place), default=None)

    def _emptiest_with(self, wanted: Counter[str]) -> int | None:
        (kind,) = wanted
        return next((place for place in self._places(kind) if self._holds(place, wanted)), None)

    def _holds(self, place: int, wanted: Counter[str]) -> bool:
        return all(len(self._free[place].get(kind, [])) >= count for kind, count in wanted.items())
