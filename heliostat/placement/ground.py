"""The cluster as the planner sees it: devices by kind, where a plan's ranks go, the links of their groups. Pure.

Ranks are laid out tensor-parallel neighbours first, then context-parallel ones, then replicas, then stages. Stages with
the larger replicas choose first, so that no replica is torn over two nodes where that can be helped: of sizes that
divide one another first-fit in falling order packs as many as there is room for (Coffman, Garey and Johnson 1987).
The exact devices are chosen later, by the placement; it may do better, hardly worse.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heliostat.cluster.machine import Device
from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.collective_time import GroupLinks
from heliostat.placement.device_speed import speed_of_device
from heliostat.placement.efficiency import DeviceSpeed, Efficiencies, fitted
from heliostat.placement.group_links import ALONE, LinkFinder, Part
from heliostat.placement.node_order import in_order
from heliostat.placement.stage_time import StageLinks
from heliostat.placement.strategy import StageStrategy, Strategy

FEW_NODES = 8
"""Up to which it is taken for possible that the ends of a pipeline share a node."""


class Shape(NamedTuple):
    """What a stage stands on: replicas of each kind, each of `tensor` x `context` devices."""

    counts: tuple[int, ...]
    """Replicas by kind, in the order of `Ground.kinds`."""
    tensor: int
    context: int = 1

    @property
    def width(self) -> int:
        """Replicas over all kinds."""
        return sum(self.counts)

    @property
    def num_ranks(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.context

    @property
    def first_kind(self) -> int:
        """The kind of the first replica."""
        return next(kind for kind, count in enumerate(self.counts) if count)


Group = tuple[Part, ...]
"""The devices of one replica: of one node if there is room in one."""


class StageHardware(NamedTuple):
    """What a stage runs on: the device of each replica, and the links of its groups."""

    speeds: tuple[DeviceSpeed, ...]
    links: StageLinks


class Ground:
    """Made once for a cluster, asked often."""

    def __init__(
        self, cluster: ClusterSpec, constants: Efficiencies | None = None, kinds: Iterable[str] | None = None
    ) -> None:
        self.cluster = cluster
        self.constants = constants or fitted()
        self.nodes = in_order(cluster)
        self.finder = LinkFinder(Network(cluster), self.nodes)
        wanted = None if kinds is None else set(kinds)
        found: dict[str, list[Part]] = {}
        slowest: dict[str, Device] = {}
        smallest: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            here: dict[str, list[int]] = {}
            for device in node.devices:
                here.setdefault(device.kind, []).append(device.index)
                slowest[device.kind] = min(slowest.get(device.kind, device), device, key=lambda one: one.speed)
                smallest[device.kind] = min(smallest.get(device.kind, device.memory_bytes), device.memory_bytes)
            for kind, indices in here.items():
                found.setdefault(kind, []).append(Part(place, tuple(indices)))
        self.kinds = tuple(sorted(kind for kind in found if wanted is None or kind in wanted))
        self.members = [found[kind] for kind in self.kinds]
        """Of each kind, the nodes that have it and its devices there."""
        self.num_devices = [sum(len(indices) for _, indices in members) for members in self.members]
        self.memory_bytes = [smallest[kind] for kind in self.kinds]
        self.speeds = [speed_of_device(slowest[kind], cluster, self.constants) for kind in self.kinds]
        self._typical: dict[Shape, StageLinks] = {}
        self._same: dict[GroupLinks, GroupLinks] = {}
        self._pairs: dict[tuple[int, int, bool], GroupLinks] = {}

    def room(self, kind: int, tensor: int) -> int:
        """Devices of `kind` that groups of `tensor` in one node can use."""
        return sum(tensor * (len(indices) // tensor) for _, indices in self.members[kind])

    def shape_of(self, stage: StageStrategy) -> Shape:
        """What `stage` stands on.

        Raises:
            PlanError: it wants a kind that is not there.
        """
        counts = Counter(replica.device_kind for replica in stage.replicas)
        for kind in counts:
            if kind not in self.kinds:
                raise self._too_few(kind, counts[kind] * stage.ranks_per_replica)
        return Shape(tuple(counts[kind] for kind in self.kinds), stage.tensor_parallel, stage.context_parallel)

    def lay_out(self, shapes: Sequence[Shape]) -> list[list[Group]]:
        """The devices of every replica of every stage, kind by kind.

        Raises:
            PlanError: there are too few of a kind.
        """
        found: list[list[Group]] = [[] for _ in shapes]
        order = sorted(range(len(shapes)), key=lambda number: (-shapes[number].num_ranks, number))
        for kind, members in enumerate(self.members):
            wanted = sum(shape.counts[kind] * shape.num_ranks for shape in shapes)
            if wanted > self.num_devices[kind]:
                raise self._too_few(self.kinds[kind], wanted)
            free = [Part(*member) for member in members]
            at, size = 0, 0
            for number in order:
                shape = shapes[number]
                if shape.num_ranks != size:
                    at, size = 0, shape.num_ranks
                for _ in range(shape.counts[kind]):
                    while at < len(free) and len(free[at].indices) < size:
                        at += 1
                    found[number].append(_taken(free, [at] if at < len(free) else range(len(free)), size))
        return found

    def hardware(self, shapes: Sequence[Shape]) -> list[StageHardware]:
        """Devices and links of every stage; its replicas are ordered by kind."""
        return [
            StageHardware(
                tuple(speed for speed, count in zip(self.speeds, shape.counts, strict=True) for _ in range(count)), one
            )
            for shape, one in zip(shapes, self.links(shapes), strict=True)
        ]

    def hardware_of(self, strategy: Strategy) -> list[StageHardware]:
        """Devices and links of every stage of `strategy`, for its replicas in their order.

        Raises:
            PlanError: the cluster has too few devices of a kind.
            UserError: nothing tells how devices are joined.
        """
        links = self.links([self.shape_of(stage) for stage in strategy.stages])
        speeds = dict(zip(self.kinds, self.speeds, strict=True))
        return [
            StageHardware(tuple(speeds[replica.device_kind] for replica in stage.replicas), one)
            for stage, one in zip(strategy.stages, links, strict=True)
        ]

    def links(self, shapes: Sequence[Shape]) -> list[StageLinks]:
        """The links of every stage's groups.

        Raises:
            PlanError: the cluster has too few devices of a kind.
            UserError: nothing tells how devices are joined.
        """
        layout = self.lay_out(shapes)
        used = Counter[int]()
        for groups in layout:
            for group in groups:
                for part in group:
                    used[part.node] += len(part.indices)
        return self._links(shapes, layout, used)

    def typical_links(self, shape: Shape) -> StageLinks:
        """The links of a stage that stands at the beginning, with its nodes in full use; equal ones are the same."""
        if shape not in self._typical:
            layout = self.lay_out([shape])
            places = {part.node for group in layout[0] for part in group}
            used = Counter({place: len(self.nodes[place].devices) for place in places})
            found = self._links([shape], layout, used)[0]
            self._typical[shape] = StageLinks(*(self._same.setdefault(links, links) for links in found))
        return self._typical[shape]

    def pair_links(self, kind: int, other: int, *, inside: bool) -> GroupLinks:
        """Between a device of `kind` and one of `other`, in one node or in two if there are such, all at work."""
        key = (kind, other, inside)
        if key not in self._pairs:
            self._pairs[key] = self._pair_links(kind, other, inside=inside)
        return self._pairs[key]

    def sharing(self, shapes: Sequence[Shape]) -> NDArray[np.int64]:
        """Whether the first devices of a stage and of the one that follows are in one node, as far as one can tell."""
        kinds = np.array([shape.first_kind for shape in shapes])
        own = np.array([shape.counts[shape.first_kind] * shape.num_ranks for shape in shapes])
        begin = np.array([members[0].node for members in self.members])[kinds]
        size = np.array([len(members[0].indices) for members in self.members])[kinds]
        same_kind = kinds[:, None] == kinds[None, :]
        same_node = np.where(same_kind, (own < size)[:, None], begin[:, None] == begin[None, :])
        return np.asarray(same_node, dtype=np.int64)

    def ends_may_meet(self, kind: int, other: int) -> bool:
        """Whether first and last stage, on devices of these kinds, may have their first devices in one node.

        In a large cluster they hardly ever do.
        """
        if len(self.nodes) > FEW_NODES:
            return False
        least = 2 if kind == other else 1
        there = {place for place, indices in self.members[kind] if len(indices) >= least}
        return any(place in there for place, _ in self.members[other])

    def _pair_links(self, kind: int, other: int, *, inside: bool) -> GroupLinks:
        place, indices = self.members[kind][0]
        pairs = [
            (one, index) for one, own in self.members[other] for index in own[:2] if (one, index) != (place, indices[0])
        ]
        chosen = [pair for pair in pairs if (pair[0] == place) == inside] or pairs
        if not chosen:
            return ALONE
        used = Counter({one: len(self.nodes[one].devices) for one in (place, chosen[0][0])})
        return self.finder.find([Part(place, indices[:1]), Part(chosen[0][0], (chosen[0][1],))], used)

    def _links(
        self, shapes: Sequence[Shape], layout: Sequence[Sequence[Group]], used: Counter[int]
    ) -> list[StageLinks]:
        firsts = [_first(groups[0]) for groups in layout]
        last = len(layout) - 1
        tied = self.finder.find([firsts[0], firsts[-1]], used) if last else ALONE
        return [
            StageLinks(
                tensor=self._slowest(groups, used, shape, 1, shape.tensor),
                context=self._slowest(groups, used, shape, shape.tensor, shape.context),
                data=self.finder.find([_first(group) for group in groups], used),
                to_next=self.finder.find(firsts[number : number + 2], used) if number < last else ALONE,
                tied=tied if number in {0, last} else ALONE,
            )
            for number, (shape, groups) in enumerate(zip(shapes, layout, strict=True))
        ]

    def _too_few(self, kind: str, wanted: int) -> PlanError:
        there = dict(zip(self.kinds, self.num_devices, strict=True))
        return PlanError(
            f"the plan wants {wanted} devices of kind {kind}",
            got=f"{there.get(kind, 0)} in the cluster, which has {', '.join(self.kinds) or 'none'}",
            next_step="use fewer devices, or kinds that are there",
        )

    def _slowest(self, groups: Sequence[Group], used: Counter[int], shape: Shape, step: int, size: int) -> GroupLinks:
        """The links of the first `size` ranks, `step` apart, of the replica where they are slowest."""
        if size == 1:
            return ALONE
        distinct = {
            tuple((id(self.nodes[part.node].machine), part.indices) for part in group): group for group in groups
        }
        chosen = (group if size == shape.num_ranks else _ranks(group, step, size) for group in distinct.values())
        return min(
            (self.finder.find(group, used) for group in chosen),
            key=lambda links: (min(links.inside_bytes_per_s, links.across_bytes_per_s), links.inside_bytes_per_s),
        )


def _taken(free: list[Part], places: Iterable[int], size: int) -> Group:
    """`size` devices out of `free`, from `places` in turn."""
    found = []
    for place in places:
        node, indices = free[place]
        if indices:
            found.append(Part(node, indices[:size]))
            free[place] = Part(node, indices[size:])
            size -= len(found[-1].indices)
        if not size:
            break
    return tuple(found)


def _first(group: Group) -> Part:
    return Part(group[0].node, group[0].indices[:1])


def _ranks(group: Group, step: int, size: int) -> Group:
    """The first `size` of every `step`th device of `group`."""
    devices = [(part.node, index) for part in group for index in part.indices][::step][:size]
    return tuple(Part(node, (index,)) for node, index in devices)
