"""The comparison with DDP works: both loops compute the same, and what was measured is written as documented."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ddp_overhead.py"


@pytest.mark.dist
def test_both_loops_run_and_agree(tmp_path: Path) -> None:
    path = tmp_path / "ddp.json"
    command = [sys.executable, str(SCRIPT), "--rounds", "2", "--json", str(path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    report = json.loads(path.read_text())
    assert (report["ranks"], len(report["rounds"])) == (2, 2)
    assert report["quartiles"][0] <= report["median_ratio"] <= report["quartiles"][1]
    assert report["within_target"] == (report["median_ratio"] <= 1.03)
    assert f"ratio {report['median_ratio']:.4f}" in shown
