"""What the connected Ray cluster has: a task on each node asks the hardware, Ray says who is alive and what is free."""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat.cluster.emulated_node import NODE_LABEL
from heliostat.cluster.node_report import NodeReport, probe
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode, Member, Survey, assemble, user_labels
from heliostat.errors import ServiceError

ANSWER_TIMEOUT_S = 30.0
"""A worker process starts within 2 s on two idle cores; a loaded machine takes ten times that."""
EXPECTED_TERMINATION = 1
"""Ray's reason for the death of a node that was told to go."""

RayNode = Mapping[str, Any]


def survey(cpus_per_device: int = 1, known: ClusterSpec | None = None) -> Survey:
    """Ask every node of the connected cluster; see `assemble` for the arguments."""
    alive, dead = _members()
    reports, silent = _reports([node["NodeID"] for node in alive])
    lost = [LostNode(node_id=node["NodeID"], name=_name(node), why=_why(node)) for node in dead]
    lost += [
        LostNode(node_id=node["NodeID"], name=_name(node), why=silent[node["NodeID"]])
        for node in alive
        if node["NodeID"] in silent
    ]
    members = [
        Member(
            node_id=node["NodeID"],
            hostname=node["NodeManagerHostname"],
            labels=user_labels(node["Labels"]),
            resources=node["Resources"],
            report=reports[node["NodeID"]],
        )
        for node in alive
        if node["NodeID"] in reports
    ]
    return assemble(members, lost=lost, cpus_per_device=cpus_per_device, known=known)


def discover(cpus_per_device: int) -> ClusterSpec:
    """Describe the devices of the connected cluster that are free now for training.

    Where there are GPUs, the cores of nodes without one are left to data and services.

    Raises:
        ServiceError: there are none.
    """
    alive, _ = _members()
    free = ray._private.state.available_resources_per_node()  # noqa: SLF001  # no public call tells what is free per node
    hardware = _hardware(tuple(sorted(node["NodeID"] for node in alive)), cpus_per_device)
    cluster = free_part(trainable(hardware), free, cpus_per_device)
    if not cluster.num_devices:
        raise ServiceError(
            f"no node of the Ray cluster has a free device with {cpus_per_device} free cores",
            got=f"free now: {free}",
            causes=("another job or a deployment holds them",),
            next_step="heliostat status",
        )
    return cluster


def trainable(cluster: ClusterSpec) -> ClusterSpec:
    """The GPUs of `cluster`, or its CPU devices if it has none."""
    if all(device.type == "cpu" for node in cluster.nodes for device in node.machine.devices):
        return cluster
    parts = (node.part(d.index for d in node.machine.devices if d.type != "cpu") for node in cluster.nodes)
    return cluster.model_copy(update={"nodes": tuple(node for node in parts if node.machine.devices)})


def free_part(cluster: ClusterSpec, free: Mapping[str, Mapping[str, float]], cpus_per_device: int) -> ClusterSpec:
    """The devices of `cluster` that can be had now; `free` holds the free resources of every node.

    Ray does not tell which GPUs of a node are free, only how many, and hands out the lowest indices first.
    """
    nodes = []
    for node in cluster.nodes:
        resources = free.get(node.node_id, {})
        on_cpu = [device.index for device in node.machine.devices if device.type == "cpu"]
        on_gpu = [device.index for device in node.machine.devices if device.type != "cpu"]
        indices = [*on_gpu[: int(resources.get("GPU", 0))], *on_cpu]
        nodes.append(node.part(indices[: int(resources.get("CPU", 0) // cpus_per_device)]))
    return cluster.model_copy(update={"nodes": tuple(nodes)})


@lru_cache(maxsize=8)
def _hardware(node_ids: tuple[str, ...], cpus_per_device: int) -> ClusterSpec:
    """The cluster of just these nodes, which are the key of the cache: hardware does not change while a node lives.

    Raises:
        ServiceError: one of them does not answer.
    """
    found = survey(cpus_per_device)
    silent = [one for one in found.lost if one.node_id in node_ids]
    if silent:
        raise ServiceError(
            "a node of the Ray cluster does not answer",
            got="; ".join(f"{one.name}: {one.why}" for one in silent),
            next_step="heliostat cluster doctor",
        )
    return found.cluster


def _members() -> tuple[list[RayNode], list[RayNode]]:
    """The nodes that are alive, and those that died unexpectedly and did not come back."""
    nodes = sorted(ray.nodes(), key=_order)
    alive = [node for node in nodes if node["Alive"]]
    back = {_name(node) for node in alive}
    dead = (node for node in nodes if not node["Alive"] and node["DeathReason"] != EXPECTED_TERMINATION)
    return alive, [node for node in dead if _name(node) not in back]


def _reports(node_ids: list[str]) -> tuple[dict[str, NodeReport], dict[str, str]]:
    """What the nodes say of themselves, and why some say nothing."""
    ask = ray.remote(_report)
    asked = {
        ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(): node_id
        for node_id in node_ids
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_TIMEOUT_S)
    reports, silent = {}, {asked[one]: f"alive, but did not answer within {ANSWER_TIMEOUT_S:.0f} s" for one in late}
    for one in late:
        ray.cancel(one, force=True)
    for one in ready:
        try:
            reports[asked[one]] = ray.get(one)
        except ray.exceptions.RayError as error:
            silent[asked[one]] = f"alive, but its report failed: {str(error).splitlines()[0]}"
    return reports, silent


def _report() -> NodeReport:
    """The report of the node of this worker. What its raylet sees of the GPUs, Ray hides from a task without one."""
    raylet = psutil.Process(os.getppid())
    return probe().model_copy(update={"visible_devices": raylet.environ().get("CUDA_VISIBLE_DEVICES")})


def _name(node: RayNode) -> str:
    return str(node["Labels"].get(NODE_LABEL) or node["NodeManagerHostname"])


def _order(node: RayNode) -> tuple[list[tuple[int, str]], str]:
    """By name as people count, `n2` before `n10`."""
    parts = re.findall(r"\d+|\D+", _name(node))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts], str(node["NodeID"])


def _why(node: RayNode) -> str:
    return str(node["DeathReasonMessage"] or "its raylet is gone")
