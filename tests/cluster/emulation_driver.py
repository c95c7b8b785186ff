"""A driver of an emulated cluster in a process of its own: pytest's may already belong to another cluster.

`emulation_driver.py ADDRESS look` prints what Ray says of each living node, and what a task pinned to it reads there;
`emulation_driver.py ADDRESS discover` prints what discovery makes of the cluster;
`emulation_driver.py ADDRESS lost NAME` waits until the node is dead, and prints the names of those that live.
"""

import json
import os
import sys
import time
from typing import Any

import ray

from heliostat.cluster.connection import connect
from heliostat.cluster.discovery import survey
from heliostat.cluster.emulated_node import NODE_LABEL, EmulatedNode

DEADLINE_S = 15.0


def read_back() -> tuple[str, str]:
    carried = EmulatedNode.here()
    return (carried.model_dump_json() if carried else ""), os.environ["CUDA_VISIBLE_DEVICES"]


def living() -> dict[str, dict[str, Any]]:
    """The emulated nodes by their names; the head is none."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {node["Labels"][NODE_LABEL]: node for node in nodes if NODE_LABEL in node["Labels"]}


def look() -> dict[str, Any]:
    nodes = living()
    task = ray.remote(read_back)
    tasks = {
        name: task.options(
            num_cpus=1, num_gpus=int(node["Resources"].get("GPU", 0)), label_selector={NODE_LABEL: name}
        ).remote()
        for name, node in nodes.items()
    }
    return {
        name: {
            "labels": node["Labels"],
            "resources": node["Resources"],
            "address": node["NodeManagerAddress"],
            "read": ray.get(tasks[name]),
        }
        for name, node in nodes.items()
    }


def lost(name: str) -> list[str]:
    deadline = time.monotonic() + DEADLINE_S
    while name in living():
        assert time.monotonic() < deadline, f"{name} is still said to live"
        time.sleep(0.1)
    return sorted(living())


def discovered() -> dict[str, Any]:
    """What discovery finds: the cluster, and the names of the nodes that it misses."""
    found = survey()
    return {"cluster": found.cluster.model_dump(mode="json"), "lost": [node.name for node in found.lost]}


if __name__ == "__main__":
    address, what, *names = sys.argv[1:]
    connect(address, env={}, code_paths=())
    answer = {"look": look, "discover": discovered, "lost": lost}[what](*names)  # type: ignore[operator]
    sys.stdout.write(json.dumps(answer) + "\n")
