"""From a plan to exact devices, without side effects.

Rule: take as few nodes as possible, and among the nodes that do, the one that is left with the fewest free devices
(best fit), because Ray's own choice is the emptiest node and leaves no room for a large gang (docs/decisions.md).
"""

from collections import Counter, deque

from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlacementError
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.placement import Placement, RankPlacement
from heliostat.placement.strategy import ReplicaShare


def solve(plan: ParallelPlan, cluster: ClusterSpec) -> Placement:
    """Choose a device for every replica of a data-parallel plan.

    Args:
        plan: one stage; every replica on one device.
        cluster: the devices that are free now.

    Raises:
        PlacementError: there are fewer free devices of some kind than the plan needs.

    """
    assert len(plan.stages) == 1, "several stages are placed by a later solver"
    wanted = Counter(replica.device_kind for replica in plan.stages[0].replicas)
    _check_supply(wanted, cluster)
    nodes = _choose_nodes(wanted, cluster)
    ranks = _assign(plan.stages[0].replicas, nodes)
    return Placement(ranks=ranks, reason=f"{len(ranks)} ranks on {len(nodes)} of {len(cluster.nodes)} nodes, best fit")


def _check_supply(wanted: Counter[str], cluster: ClusterSpec) -> None:
    free = cluster.count_by_kind()
    for kind, count in wanted.items():
        if free.get(kind, 0) < count:
            raise PlacementError(
                f"the plan needs {count} free devices of kind {kind!r}",
                got=f"{free.get(kind, 0)} free; free now: {free or 'none'}",
                causes=("another job or a deployment holds the devices", "a node was lost after the plan was made"),
                next_step="free devices (`heliostat status`, `heliostat down`), or run again to plan for what is left",
            )


def _choose_nodes(wanted: Counter[str], cluster: ClusterSpec) -> list[tuple[Node, Counter[str]]]:
    """Nodes in order, each with how many devices of each kind to take there."""
    missing = Counter(wanted)
    candidates = list(cluster.nodes)
    chosen: list[tuple[Node, Counter[str]]] = []
    while missing.total():
        node = min(candidates, key=lambda node: _preference(node, missing))
        candidates.remove(node)
        taken = _usable(node, missing)
        missing -= taken
        if taken.total():
            chosen.append((node, taken))
    return chosen


def _preference(node: Node, missing: Counter[str]) -> tuple[int, int, str]:
    """Most useful devices first, then the fewest devices left over, then the name: deterministic."""
    useful = _usable(node, missing).total()
    return -useful, len(node.devices) - useful, node.node_id


def _usable(node: Node, missing: Counter[str]) -> Counter[str]:
    return Counter(device.kind for device in node.devices) & missing


def _assign(replicas: tuple[ReplicaShare, ...], nodes: list[tuple[Node, Counter[str]]]) -> tuple[RankPlacement, ...]:
    """Deal the replicas over the chosen nodes; larger shares first within a kind."""
    queues: dict[str, deque[ReplicaShare]] = {}
    for replica in sorted(replicas, key=lambda replica: -replica.num_samples):
        queues.setdefault(replica.device_kind, deque()).append(replica)
    ranks: list[RankPlacement] = []
    for node, taken in nodes:
        left = Counter(taken)
        for device in sorted(node.devices, key=lambda device: device.index):
            if left[device.kind]:
                left[device.kind] -= 1
                replica = queues[device.kind].popleft()
                ranks.append(
                    RankPlacement(
                        rank=len(ranks),
                        node_id=node.node_id,
                        device_index=device.index,
                        device_kind=device.kind,
                        num_samples=replica.num_samples,
                        micro_batch=replica.micro_batch,
                    )
                )
    return tuple(ranks)
