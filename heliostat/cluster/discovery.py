"""What the connected Ray cluster has, as a `ClusterSpec` of the devices that are free now.

A node without GPUs offers CPU devices, each a fixed number of cores. (GPU nodes and their topology come with the
device catalogue.)
"""

import ray

from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import ServiceError

CPU_MEMORY_SHARE = 0.5
"""Part of a node's memory that ranks may plan with; the object store and the other processes get the rest."""


def discover(cpus_per_device: int) -> ClusterSpec:
    """Describe the free devices of every live node of the connected cluster.

    Raises:
        ServiceError: no node has `cpus_per_device` free cores.

    """
    free = ray._private.state.available_resources_per_node()  # noqa: SLF001  # no public call tells what is free per node
    nodes = tuple(
        _node(node, free.get(node["NodeID"], {}), cpus_per_device)
        for node in sorted(ray.nodes(), key=lambda node: node["NodeID"])
        if node["Alive"]
    )
    cluster = ClusterSpec(nodes=nodes, origin="live")
    if not cluster.num_devices:
        raise ServiceError(
            f"no node of the Ray cluster has {cpus_per_device} free cores",
            got=f"free now: {free}",
            causes=("another job or a deployment holds them",),
            next_step="heliostat status",
        )
    return cluster


def _node(node: dict[str, object], free: dict[str, float], cpus_per_device: int) -> Node:
    resources = node["Resources"]
    assert isinstance(resources, dict)
    num_devices = int(free.get("CPU", 0) // cpus_per_device)
    capacity = max(1, int(resources.get("CPU", 1) // cpus_per_device))
    memory_bytes = int(resources.get("memory", 0) * CPU_MEMORY_SHARE) // capacity
    labels = node.get("Labels") or {}
    assert isinstance(labels, dict)
    return Node.of(
        str(node["NodeID"]),
        (Device(type="cpu", index=index, memory_bytes=memory_bytes) for index in range(num_devices)),
        hostname=str(node.get("NodeManagerHostname", "")),
        labels={str(key): str(value) for key, value in labels.items()},
    )
