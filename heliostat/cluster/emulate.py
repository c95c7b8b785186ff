"""A Ray cluster on this machine that pretends to be another one: a head node without work, and a raylet for each node.

Each raylet has the logical GPUs, CPUs and labels of its node and carries the node's description (`emulated_node`), from
which discovery reads it back. Devices keep their indices: Ray hands them out as CUDA_VISIBLE_DEVICES. Nothing is
emulated but slowness (`heliostat.train.slowdown`): devices have no memory limit, and links are as fast as this machine.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from heliostat.cluster import local
from heliostat.cluster.emulated_node import EMULATED_LABEL, NODE_LABEL, VARIABLE, EmulatedNode, slowdowns_of
from heliostat.cluster.local import LocalRay, NodeStart
from heliostat.cluster.machine import Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError

HOST_LABEL, ISLAND_LABEL = "heliostat.io/host", "heliostat.io/island"
"""Of a raylet that is one island of a node: the node, and the number of the island."""
OBJECT_STORE_BYTES = 256 << 20
"""Shared memory that a raylet may fill, at most."""
RAYLET_BYTES = 400 << 20
"""What a node with two idle workers takes: 357 MiB were measured, memory that processes share counted once."""
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""As Ray 2.60 takes them, ray/_private/label_utils.py."""
_QUICK_TO_MISS = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000"}
"""A node is dead when it missed 5 checks; 3 s lie between them by default. An answer may still take 10 s."""


def start(
    spec: ClusterSpec,
    *,
    temp_dir: str,
    env: Mapping[str, str],
    token_path: Path,
    log_dir: Path,
    cpus_per_device: int = 1,
    slowdowns: Mapping[str, float] | None = None,
) -> LocalRay:
    """Start a cluster that pretends to be `spec`, and wait until all its nodes have joined.

    Args:
        spec: the nodes; for a raylet per NVLink island give `by_island(spec)`.
        temp_dir: from `local.make_temp_dir`; it goes when the cluster stops.
        env: variables for every Ray process.
        token_path: file of the authentication token, made when missing.
        log_dir: folder for what the nodes print: `ray.log` and `ray-NODE.log`.
        cpus_per_device: cores that each device brings with it, as Ray counts them; a node has no others.
        slowdowns: device type -> how many times as long it takes as the fastest one, in place of the catalogue's.

    Raises:
        UserError: too many nodes for this machine, a node id that is no label, or a slow-down that makes no sense.
        ServiceError: a node did not come up; then nothing is left of the cluster.
    """
    _check(spec)
    factors = slowdowns_of(spec, slowdowns)
    nodes = [
        _node_start(
            EmulatedNode.of(node, spec, factors), Path(temp_dir), env=env, log_dir=log_dir, cpus=cpus_per_device
        )
        for node in spec.nodes
    ]
    head = local.start(
        num_cpus=0,
        temp_dir=temp_dir,
        env={**_QUICK_TO_MISS, **env},
        token_path=token_path,
        log=log_dir / "ray.log",
        options=("--num-gpus=0",),
    )
    try:
        return local.add_nodes(head, nodes)
    except BaseException:
        head.stop()
        raise


@contextmanager
def emulated(
    spec: ClusterSpec, *, cpus_per_device: int = 1, slowdowns: Mapping[str, float] | None = None
) -> Iterator[LocalRay]:
    """The cluster of `start` in a folder of its own, stopped in the end whatever happens.

    Raises:
        As `start`.
    """
    temp_dir = local.make_temp_dir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, temp_dir, ignore_errors=True)
        cluster = start(
            spec,
            temp_dir=temp_dir,
            env={},
            token_path=Path(temp_dir, "token"),
            log_dir=Path(temp_dir),
            cpus_per_device=cpus_per_device,
            slowdowns=slowdowns,
        )
        stack.callback(cluster.stop)
        yield cluster


def as_emulated(spec: ClusterSpec) -> ClusterSpec:
    """`spec` as what an emulation of it is, wherever it came from."""
    return spec.model_copy(update={"origin": "emulated"})


def by_island(spec: ClusterSpec) -> ClusterSpec:
    """`spec` with each island of a node (`NodeTopology.islands`) as a node of its own: `NODE.0`, `NODE.1`, ...

    Ray places by node, so it then keeps a gang within an island by itself; labels say which islands share a host.
    """
    nodes = tuple(part for node in spec.nodes for part in _islands(node))
    return ClusterSpec(**{**dict(spec), "nodes": nodes})


def _islands(node: Node) -> Iterator[Node]:
    for number, indices in enumerate(_members(node.machine)):
        labels = {**node.labels, HOST_LABEL: node.node_id, ISLAND_LABEL: str(number)}
        yield node.part(indices).model_copy(update={"node_id": f"{node.node_id}.{number}", "labels": labels})


def _members(machine: Machine) -> list[set[int]]:
    """The indices of the devices of each island that has any; all devices where nobody told how they are joined."""
    if machine.topology is None:
        return [{device.index for device in machine.devices}]
    islands = (
        {device.index for device in machine.devices if machine.end(device.index) in island.devices}
        for island in machine.topology.islands()
    )
    return [indices for indices in islands if indices]


def _check(spec: ClusterSpec) -> None:
    free = psutil.virtual_memory().available
    needed = len(spec.nodes) * RAYLET_BYTES
    if needed > free:
        raise UserError(
            f"this machine cannot emulate {len(spec.nodes)} nodes",
            got=f"{free / 2**30:.1f} GiB of free memory; a node takes {RAYLET_BYTES / 2**30:.1f}",
            next_step=f"emulate at most {free // RAYLET_BYTES} nodes; planning and `show` need no emulation",
        )
    for node in spec.nodes:
        if not _LABEL_VALUE.fullmatch(node.node_id):
            raise UserError(
                "the id of a node is a label of its raylet, and Ray would refuse it",
                got=repr(node.node_id),
                next_step="use up to 63 letters, digits, '-', '_' and '.', the first and last a letter or digit",
            )


def _node_start(node: EmulatedNode, temp_dir: Path, *, env: Mapping[str, str], log_dir: Path, cpus: int) -> NodeStart:
    description = temp_dir / f"{node.node_id}.json"
    description.write_text(node.model_dump_json())
    devices = node.machine.devices
    gpus = [str(device.index) for device in devices if device.type != "cpu"]
    labels = {**node.labels, NODE_LABEL: node.node_id, EMULATED_LABEL: "true"}
    return NodeStart(
        name=node.node_id,
        options=(
            *(f"--num-cpus={cpus * len(devices)}", f"--num-gpus={len(gpus)}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--labels={','.join(map('='.join, labels.items()))}"),
        ),
        env={**env, VARIABLE: str(description), "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
        log=log_dir / f"ray-{node.node_id}.log",
    )
