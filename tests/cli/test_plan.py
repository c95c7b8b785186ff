"""`heliostat plan`: find, check and fit, on files alone."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import invoke
from heliostat.document import read
from heliostat.placement import plan_file
from heliostat.placement.efficiency import Efficiencies
from tests.placement.made_runs import VTRAIN
from tests.placement.view.plans import plan, strategy

CLUSTER = """\
machines:
  a100: {devices: 2 x A100-40GB-SXM, links: NV12, nics: 1 x 100 Gbit/s}
  v100: {devices: 2 x V100-32GB-SXM, links: NV2, nics: 1 x 100 Gbit/s}
nodes: [{machine: a100}, {machine: v100}]
fabric:
  levels: [{name: site, gbit_per_s: 100}]
"""
WORKLOAD = """\
model: {family: gpt, hidden: 1024, layers: 4, heads: 16, seq_len: 1024, vocab: 50257}
global_batch: 16
precision: fp16
cluster: cluster.yaml
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    path = tmp_path / "work.yaml"
    path.write_text(WORKLOAD)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    plan_file.save(plan(), path)
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data, indent=1))
    return str(path)


def test_the_best_plan_is_found_shown_and_checked(
    workload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = ["--html", str(tmp_path / "plan.html"), "--svg", str(tmp_path / "plan.svg")]
    assert invoke(["plan", str(workload), *pictures]) == 0
    shown = capsys.readouterr().out
    for words in ("The fastest plan found takes", "2 x A100-40GB-SXM + 2 x V100-32GB-SXM", "Memory at the peak"):
        assert words in shown
    assert "<svg" in (tmp_path / "plan.html").read_text()
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")

    assert invoke(["plan", "find", str(workload), "--json", "--budget-s", "30"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "best.json").write_text(text)
    assert json.loads(text)["wanted"] == {"global_batch": 16, "budget_s": 30.0}
    assert invoke(["plan", "check", str(tmp_path / "best.json")]) == 0
    assert "as the file says" in capsys.readouterr().out


def test_what_is_asked_can_be_set(workload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pinned = ["--set", "pins.num_stages=1", "--set", "pins.kinds=[A100-40GB-SXM]"]
    assert invoke(["plan", str(workload), "--json", *pinned]) == 0
    stages = json.loads(capsys.readouterr().out)["strategy"]["stages"]
    assert len(stages) == 1
    assert {one["device_kind"] for one in stages[0]["replicas"]} == {"A100-40GB-SXM"}
    assert invoke(["plan", str(workload), "--objective", "fewest"]) == 2
    assert "needs `target_s`" in capsys.readouterr().err
    assert invoke(["plan", str(workload), "--objective", "quickest"]) == 2
    assert "must be 'fastest', 'cheapest' or 'fewest'" in capsys.readouterr().err


def test_a_cluster_must_be_named(workload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload.write_text(WORKLOAD.replace("cluster: cluster.yaml\n", ""))
    assert invoke(["plan", str(workload)]) == 2
    assert "nothing says which cluster to plan for" in capsys.readouterr().err
    assert invoke(["plan", str(workload), "--cluster", str(tmp_path / "cluster.yaml")]) == 0


def test_mistakes_are_told_with_their_place(workload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload.write_text(WORKLOAD.replace("gpt,", "gtp,").replace("16\n", "0\n"))
    assert invoke(["plan", str(workload)]) == 2
    errors = capsys.readouterr().err
    assert "work.yaml:1:9: model.family: must be 'gpt'" in errors
    assert "work.yaml:2:1: global_batch: must be greater than 0" in errors
    assert invoke(["plan", str(tmp_path / "missing.yaml")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    workload.write_text(WORKLOAD)
    assert invoke(["plan", str(workload), "--html", str(tmp_path / "no" / "x.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_plan_that_was_not_edited_costs_what_it_says(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", "check", str(written)]) == 0
    assert capsys.readouterr().out.endswith("a step, as the file says\n")


def test_an_edit_is_predicted_anew(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def slower(data: dict[str, Any]) -> None:
        for stage in data["strategy"]["stages"]:
            stage["recompute"] = "full"

    assert invoke(["plan", "check", edited(written, slower)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("can run: ")
    assert "the file says" in last
    assert invoke(["plan", "check", str(written), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["prediction"]["step_time_s"] > plan().prediction.step_time_s
    assert data["strategy"]["stages"][0]["recompute"] == "full"


def test_a_plan_that_does_not_fit_cannot_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    plan_file.save(plan(strategy(micro_batch=16)), path)
    assert invoke(["plan", "check", str(path)]) == 1
    output = capsys.readouterr().out
    assert "Memory does not suffice on A100-40GB-SXM of stage 0" in output
    assert "CANNOT RUN" in output
    assert "the smallest change that fits: " in output


def test_a_plan_for_devices_that_are_not_there_cannot_run(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    assert invoke(["plan", "check", str(written), "--cluster", str(tmp_path / "cluster.yaml")]) == 1
    errors = capsys.readouterr().err
    assert "cannot run: the plan wants 16 devices of kind A100-40GB-SXM" in errors
    assert "Traceback" not in errors


def test_a_plan_with_mistakes_is_not_checked(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", "check", edited(written, lambda data: data["strategy"].update(global_batch=65))]) == 2
    assert "share 64 of 65 samples" in capsys.readouterr().err
    assert invoke(["plan", "check", edited(written, lambda data: data["strategy"].pop("stages"))]) == 2
    assert "strategy.stages: is missing" in capsys.readouterr().err


def test_constants_are_fitted_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(VTRAIN))
        writer.writeheader()
        for layers in range(8, 40, 4):
            writer.writerow({**VTRAIN, "layers": str(layers), "iter_time_ms": str(15 * layers)})
    out = tmp_path / "efficiency.yaml"
    assert invoke(["plan", "fit", str(tmp_path), "--out", str(out)]) == 0
    assert "fitted on" in capsys.readouterr().err
    assert Efficiencies.model_validate(read(out).data).fitted_on
    assert invoke(["plan", "fit", str(tmp_path / "nowhere")]) == 2
    assert "no CSV file with measured runs" in capsys.readouterr().err


def test_planning_loads_nothing_heavy(workload: Path) -> None:
    code = (
        "import sys; from heliostat.cli import invoke; "
        f"invoke(['plan', {str(workload)!r}, '--html', {str(workload.with_suffix('.html'))!r}]); "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.split()
    assert not {"ray", "torch", "mlflow", "pandas", "matplotlib", "scipy"} & set(loaded)
