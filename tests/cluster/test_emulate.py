"""A real cluster of raylets that pretend to be the nodes of a spec."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from heliostat.cluster.emulate import RAYLET_BYTES, as_emulated, by_island, emulated
from heliostat.cluster.emulated_node import EMULATED_LABEL, NODE_LABEL, EmulatedNode, slowdowns_of
from heliostat.cluster.local import LocalRay
from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError

DRIVER = Path(__file__).with_name("emulation_driver.py")
SPEC = ClusterSpec.model_validate(
    {
        "machines": {
            "a100": {"devices": "2 x A100-40GB-SXM", "links": "NV12"},
            "v100": {"devices": "4 x V100-32GB-SXM", "links": "NV1"},
            "cpu": {"devices": [{"type": "cpu", "memory_gib": 2}]},
        },
        "nodes": [
            {"machine": "a100", "count": 2, "labels": {"rack": "r0"}},
            {"machine": "v100", "labels": {"rack": "r1"}},
            {"machine": "cpu", "labels": {"rack": "r1"}},
        ],
        "fabric": {"levels": [{"name": "rack", "gbit_per_s": 100}, {"name": "cluster", "gbit_per_s": 25}]},
    }
)


def ask(cluster: LocalRay, *what: str) -> Any:
    done = subprocess.run(
        [sys.executable, DRIVER, cluster.address, *what],
        env={**os.environ, **cluster.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def family(cluster: LocalRay) -> list[psutil.Process]:
    """What runs in the sessions of its keepers, whose children cannot leave them."""
    sessions = {cluster.keeper.pid, *(raylet.pid for raylet in cluster.raylets.values())}
    return [process for process in psutil.process_iter() if process.is_running() and _session(process) in sessions]


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalRay]:
    with emulated(SPEC, cpus_per_device=2) as running:
        yield running


@pytest.mark.ray
def test_every_node_of_the_spec_is_there_and_knows_what_it_is(cluster: LocalRay) -> None:
    found = ask(cluster, "look")
    assert found.keys() == SPEC.by_id.keys() == cluster.raylets.keys()
    slowdowns = slowdowns_of(SPEC)
    for name, node in SPEC.by_id.items():
        seen = found[name]
        gpus = [device.index for device in node.devices if device.type != "cpu"]
        assert node.labels.items() <= seen["labels"].items()
        assert (seen["labels"][NODE_LABEL], seen["labels"][EMULATED_LABEL]) == (name, "true")
        assert seen["resources"]["CPU"] == 2 * len(node.devices)
        assert seen["resources"].get("GPU", 0) == len(gpus)
        description, visible = seen["read"]
        assert EmulatedNode.model_validate_json(description) == EmulatedNode.of(node, SPEC, slowdowns)
        assert sorted(map(int, filter(None, visible.split(",")))) == gpus
    assert len({seen["address"] for seen in found.values()}) == len(found)


@pytest.mark.ray
def test_discovery_returns_the_spec_that_it_was_started_from(cluster: LocalRay) -> None:
    """But for the ids, which are Ray's: a node's name is where a host's is."""
    answer = ask(cluster, "discover")
    found = ClusterSpec.model_validate(answer["cluster"])
    named = [node.model_copy(update={"node_id": node.hostname, "hostname": ""}) for node in found.nodes]
    assert sorted(named, key=lambda node: node.node_id) == sorted(SPEC.nodes, key=lambda node: node.node_id)
    assert (found.fabric, found.types, found.origin) == (SPEC.fabric, SPEC.types, "emulated")
    assert answer["lost"] == []


@pytest.mark.ray
def test_a_killed_node_is_soon_lost_and_nothing_outlives_the_end(cluster: LocalRay) -> None:
    os.kill(cluster.raylets["v100-0"].pid, signal.SIGKILL)
    assert ask(cluster, "lost", "v100-0") == ["a100-0", "a100-1", "cpu-0"]
    assert ask(cluster, "discover")["lost"] == ["v100-0"]
    assert family(cluster)
    LocalRay.model_validate_json(cluster.model_dump_json()).stop()  # as another command would
    assert family(cluster) == []
    assert not Path(cluster.temp_dir).exists()


def test_an_emulated_cluster_says_so() -> None:
    assert as_emulated(SPEC).origin == "emulated"
    assert as_emulated(SPEC).nodes == SPEC.nodes


def test_each_island_becomes_a_node_of_the_same_host() -> None:
    machines = {
        "v100": {
            "devices": "4 x V100-32GB-SXM",
            "links": {"NV2": [["GPU0", "GPU1"], ["GPU2", "GPU3"]], "SYS": "all"},
        },
        "t4": {"devices": "2 x T4"},
    }
    spec = ClusterSpec.model_validate({"machines": machines, "nodes": [{"machine": "v100"}, {"machine": "t4"}]})
    split = by_island(spec)
    assert {node.node_id: [device.index for device in node.devices] for node in split.nodes} == {
        "v100-0.0": [0, 1],
        "v100-0.1": [2, 3],
        "t4-0.0": [0, 1],
    }
    assert split.nodes[1].labels == {"heliostat.io/host": "v100-0", "heliostat.io/island": "1"}


def test_what_cannot_be_emulated_is_refused_before_anything_starts() -> None:
    cpu = Device(type="cpu", index=0, memory_bytes=1)
    for name in ("two words", "a" * 64, "-a"):
        with pytest.raises(UserError, match="Ray would refuse it"), emulated(spec_of(Node.of(name, [cpu]))):
            pass
    num_nodes = psutil.virtual_memory().total // RAYLET_BYTES + 1
    many = spec_of(*(Node.of(f"n{number}", [cpu]) for number in range(num_nodes)))
    with pytest.raises(UserError, match=f"cannot emulate {num_nodes} nodes"), emulated(many):
        pass


def spec_of(*nodes: Node) -> ClusterSpec:
    return ClusterSpec(nodes=nodes, origin="file")
