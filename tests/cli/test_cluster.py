"""`heliostat cluster` on files, and what a user can get wrong; no Ray is started."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import invoke
from heliostat.cluster import spec_file
from tests.experiment.test_services import session as running_session

SPEC = """\
machines:
  a100: {devices: 4 x A100-40GB-SXM, links: NV12, nics: 4 x 200 Gbit/s}
nodes:
  - {machine: a100, count: 2, labels: {rack: r0}}
fabric:
  levels: [{name: rack, gbit_per_s: 400}, {name: site, gbit_per_s: 100}]
"""
WRONG = """\
machines:
  a100: {devices: 4 x A100-40GB-SMX}
  v100: {devices: 2 x V100-32GB-SXM, links: {NV2: [[GPU0, GPU1]], SYS: [[GPU1, GPU0]]}}
nodes:
  - {machine: a1000}
fabric:
  levels: [{name: rack, gbit_per_s: -400}]
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(SPEC)
    return path


def test_a_file_is_shown_as_table_json_yaml_and_picture(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["cluster", "show", str(spec), "--png", str(tmp_path / "x.png")]) == 0
    output = capsys.readouterr().out
    assert "2 nodes, 8 devices" in output
    assert "rack r0" in output
    assert (tmp_path / "x.png").stat().st_size > 10_000

    assert invoke(["cluster", "show", str(spec), "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (shown["origin"], shown["num_devices"], shown["lost"]) == ("file", 8, [])
    assert shown["islands"] == [{"device": "A100-40GB-SXM", "size": 4, "link": "NV12", "count": 2}]

    assert invoke(["cluster", "show", str(spec), "--yaml"]) == 0
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    (tmp_path / "again.json").write_text(json.dumps(shown["cluster"]))
    assert spec_file.load(again) == spec_file.load(tmp_path / "again.json") == spec_file.load(spec)


def test_showing_a_file_loads_nothing_heavy(spec: Path) -> None:
    code = (
        "import sys; from heliostat.cli import invoke; "
        f"invoke(['cluster', 'show', {str(spec)!r}]); "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.split()
    assert not {"ray", "torch", "mlflow", "pandas", "matplotlib"} & set(loaded)


def test_every_mistake_in_a_file_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    for command in (["show"], ["doctor"], ["emulate", "--store", str(tmp_path)]):
        assert invoke(["cluster", *command, str(path)]) == 2
        errors = capsys.readouterr().err
        assert "wrong.yaml:7:" in errors
        assert "Traceback" not in errors
    path.write_text(WRONG.replace("-400", "400"))
    assert invoke(["cluster", "show", str(path)]) == 2
    errors = capsys.readouterr().err
    for words in (
        "wrong.yaml:2:",
        "did you mean 'A100-40GB-SXM'",
        "wrong.yaml:3:",
        "asymmetric",
        "wrong.yaml:5:",
        "did you mean 'a100'",
    ):
        assert words in errors


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert invoke(["cluster", *arguments]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors


def test_what_contradicts_itself_is_refused(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a cluster file or an address" in refused(capsys, "show", str(spec), "--address", "127.0.0.1:1")
    assert "--json or --yaml" in refused(capsys, "show", str(spec), "--json", "--yaml")
    assert "cannot be written" in refused(capsys, "show", str(spec), "--png", str(tmp_path / "no" / "x.png"))
    assert "cannot be written" in refused(
        capsys, "calibrate", "--store", str(tmp_path / "s"), "--out", str(tmp_path / "no" / "x.yaml")
    )
    assert "missing.yaml" in refused(capsys, "show", str(tmp_path / "missing.yaml"))


def test_wrong_slow_downs_are_refused_before_anything_starts(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    emulate = ("emulate", str(spec), "--store", str(store))
    assert "TYPE=FACTOR" in refused(capsys, *emulate, "--slowdown", "A100-40GB-SXM")
    assert "A100-40GB-SXM" in refused(capsys, *emulate, "--slowdown", "A100-40GB-SMX=2")
    assert "from 1.0 on" in refused(capsys, *emulate, "--slowdown", "A100-40GB-SXM=0.5")
    assert not (store / "session.json").exists()


def test_one_cluster_for_a_store(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = running_session(tmp_path)
    running.save(tmp_path)
    try:
        errors = refused(capsys, "emulate", str(spec), "--store", str(tmp_path))
    finally:
        assert invoke(["down", "--store", str(tmp_path)]) == 0
    assert "already up for this store" in errors
    assert "heliostat down --store" in errors


def test_a_cluster_that_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = refused(capsys, "show", "--address", "127.0.0.1:1", "--store", str(tmp_path))
    assert "cannot join the Ray cluster" in errors
    assert "where: Ray at 127.0.0.1:1" in errors
