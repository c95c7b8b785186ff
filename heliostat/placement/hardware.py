"""From a cluster to what `predict` asks for: the device of each replica and the links of each group. Pure.

Ranks are laid out as Megatron-LM does: tensor-parallel neighbours first, then context, then replicas, then stages, over
the devices of the wanted kinds in the cluster's order. The exact devices are chosen later, by the placement.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from heliostat.cluster.network import Network
from heliostat.cluster.spec import DeviceId
from heliostat.errors import PlanError
from heliostat.placement.collective_time import GroupLinks
from heliostat.placement.stage_time import StageLinks
from heliostat.placement.strategy import Strategy

ALONE = GroupLinks()


def lay_out(network: Network, strategy: Strategy) -> list[list[list[DeviceId]]]:
    """For every stage and replica its devices.

    Raises:
        PlanError: the cluster has too few devices of a kind.
    """
    cluster = network.cluster
    free: dict[str, list[DeviceId]] = {}
    for node in cluster.nodes:
        for device in node.devices:
            free.setdefault(device.kind, []).append(DeviceId(node.node_id, device.index))
    wanted = Counter[str]()
    for stage in strategy.stages:
        for replica in stage.replicas:
            wanted[replica.device_kind] += stage.ranks_per_replica
    for kind, count in wanted.items():
        if count > len(free.get(kind, ())):
            raise PlanError(
                f"the plan wants {count} devices of kind {kind}",
                got=f"{len(free.get(kind, ()))} in the cluster, which has {', '.join(sorted(free)) or 'none'}",
                next_step="use fewer devices, or kinds that are there",
            )
    at = dict.fromkeys(wanted, 0)
    found = []
    for stage in strategy.stages:
        replicas = []
        for replica in stage.replicas:
            begin = at[replica.device_kind]
            at[replica.device_kind] = begin + stage.ranks_per_replica
            replicas.append(free[replica.device_kind][begin : at[replica.device_kind]])
        found.append(replicas)
    return found


def links_of(network: Network, strategy: Strategy) -> list[StageLinks]:
    """The links of every stage's groups, with the devices laid out in the cluster's order."""
    layout = lay_out(network, strategy)
    everyone = [device for replicas in layout for replica in replicas for device in replica]
    used = Counter(device.node_id for device in everyone)
    found = []
    for number, (stage, replicas) in enumerate(zip(strategy.stages, layout, strict=True)):
        first, tensor = replicas[0], stage.tensor_parallel
        following = layout[number + 1][0] if number + 1 < len(layout) else None
        ends = number in {0, len(layout) - 1} and len(layout) > 1
        found.append(
            StageLinks(
                tensor=_group(network, first[:tensor], used),
                context=_group(network, first[::tensor], used),
                data=_group(network, [replica[0] for replica in replicas], used),
                to_next=_group(network, [first[0], following[0]], used) if following else ALONE,
                tied=_group(network, [layout[0][0][0], layout[-1][0][0]], used) if ends else ALONE,
            )
        )
    return found


def _group(network: Network, devices: Sequence[DeviceId], used: Counter[str]) -> GroupLinks:
    """The links of the group `devices`, of `used` devices at work on each node."""
    if len(devices) < 2:
        return ALONE
    by_node: dict[str, list[int]] = {}
    for device in devices:
        by_node.setdefault(device.node_id, []).append(device.device_index)
    fields: dict[str, float] = {}
    crowded = [(node, indices) for node, indices in by_node.items() if len(indices) > 1]
    if crowded:
        rates = {
            tuple(indices): network.collective_bytes_per_s([DeviceId(node, index) for index in indices])
            for node, indices in {tuple(indices): (node, indices) for node, indices in crowded}.values()
        }
        fields["inside_bytes_per_s"] = min(rates.values())
        node, indices = crowded[0]
        fields["inside_latency_s"] = network.link(DeviceId(node, indices[0]), DeviceId(node, indices[1])).latency_s
    if len(by_node) > 1:
        nodes = list(by_node)
        fields["across_bytes_per_s"] = min(
            network.collective_bytes_per_s(_whole(network, nodes)) * len(indices) / max(used[node], len(indices))
            for node, indices in by_node.items()
        )
        a, b = (DeviceId(node, by_node[node][0]) for node in (nodes[0], nodes[-1]))
        fields["across_latency_s"] = network.link(a, b).latency_s
    return GroupLinks.model_validate({"size": len(devices), "num_nodes": len(by_node), **fields})


def _whole(network: Network, nodes: Iterable[str]) -> list[DeviceId]:
    by_id = network.cluster.by_id
    return [DeviceId(node, device.index) for node in nodes for device in by_id[node].devices]
