"""An emulated cluster as a user has it: start, look, lose a node, examine, stop; nothing is left."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from heliostat.cluster import spec_file
from heliostat.cluster.spec import ClusterSpec
from heliostat.experiment.services import Session
from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

SPEC = """\
machines:
  a100: {devices: 4 x A100-40GB-SXM, links: NV12, nics: 4 x 200 Gbit/s}
  t4: {devices: 1 x T4}
nodes:
  - {machine: a100, labels: {rack: r0}}
  - {machine: t4, labels: {rack: r1}}
fabric:
  levels: [{name: rack, gbit_per_s: 400}, {name: site, gbit_per_s: 100}]
"""
NOTICED_S = 15.0
"""What the project promises."""


@pytest.fixture
def emulation(tmp_path: Path) -> Project:
    (tmp_path / "cluster.yaml").write_text(SPEC)
    return Project(tmp_path, port=0)


def answer(emulation: Project, *arguments: str, exit_code: int = 0) -> Any:
    """What `heliostat cluster ARGUMENTS --json` prints on stdout."""
    process = emulation.start("cluster", *arguments, "--json")
    output, errors = process.communicate(timeout=100)
    assert process.returncode == exit_code, output + errors
    return json.loads(output)


def described(cluster: ClusterSpec) -> dict[str, Any]:
    """The cluster without what is Ray's: its ids, and who told of it."""
    nodes = [(node.hostname or node.node_id, node.machine, node.labels) for node in cluster.nodes]
    return {"nodes": sorted(nodes, key=lambda one: one[0]), "fabric": cluster.fabric}


def test_an_emulated_cluster_from_start_to_end(emulation: Project) -> None:
    store = emulation.directory / ".heliostat"
    assert "EMULATED: 2 nodes with 5 devices" in emulation.call("cluster", "emulate", "cluster.yaml")
    ray = Session.load(store).ray
    assert ray is not None
    try:
        assert "EMULATED: 2 nodes" in emulation.call("status")
        shown = answer(emulation, "show")
        assert (shown["origin"], shown["lost"]) == ("emulated", [])
        wanted = spec_file.load(emulation.directory / "cluster.yaml")
        assert described(ClusterSpec.model_validate(shown["cluster"])) == described(wanted)
        assert "healthy" in emulation.call("cluster", "doctor", "cluster.yaml")

        [raylet] = [
            process
            for process in psutil.Process(ray.raylets["t4-0"].pid).children(recursive=True)
            if process.name() == "raylet"
        ]
        raylet.kill()
        deadline = time.monotonic() + NOTICED_S
        while not (lost := answer(emulation, "show")["lost"]):
            assert time.monotonic() < deadline, "the loss was not noticed in time"
        assert [node["name"] for node in lost] == ["t4-0"]
        findings = answer(emulation, "doctor", "cluster.yaml", exit_code=1)["findings"]
        assert [(one["severity"], one["node"]) for one in findings] == [("error", "t4-0")]
    finally:
        emulation.call("down")
    assert "nothing is up" in emulation.call("status")
    assert emulation.processes() == []
    assert not Path(ray.temp_dir).exists()


QUICKLY = """\
import sys
from heliostat.train.calibrate_cluster import calibrate_cluster
from heliostat.train.effort import QUICK
calibrate_cluster.__kwdefaults__["effort"] = QUICK
from heliostat.cli import main
main()
"""


def test_calibrating_a_machine_on_which_nothing_is_up(emulation: Project) -> None:
    """The figures are rough, the way to them is the user's: a Ray cluster for the time of it, then the file."""
    command = [sys.executable, "-c", QUICKLY, "cluster", "calibrate", "--json"]
    done = subprocess.run(command, cwd=emulation.directory, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    calibration = json.loads(done.stdout)["calibration"]
    assert {one["subject"] for one in calibration["comparisons"]} >= {"cpu"}
    assert not calibration["emulated"]
    assert "nothing is up" in emulation.call("status")
    assert emulation.processes() == []
    # the next look at this machine has them beside its devices
    assert answer(emulation, "show")["calibration"] == calibration
    written = spec_file.load(emulation.directory / ".heliostat" / "cluster.yaml")
    assert written.measured is not None
    assert written.origin == "live"
