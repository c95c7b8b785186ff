"""The GPU benchmark works: on the CPU, with the smallest shapes, and without what its machine may not have."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_single.py"
ABSENT = ("ray", "mlflow", "pandas", "pyarrow", "deltalake", "sklearn", "scipy", "psutil")
RUN = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))
sys.path[0] = {str(SCRIPT.parent)!r}
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


def run(path: Path) -> str:
    arguments = ["--device", "cpu", "--shapes", "tiny", "--only", "bf16 full", "--rounds", "2", "--eager"]
    command = [sys.executable, "-c", RUN, *arguments, "--json", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_cases_are_measured_once_and_written_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "gpu_single.json"
    assert "2 cases: mean error of the step time" in run(path)
    report = json.loads(path.read_text())
    assert report.keys() == {"format", "device", "kind", "torch", "compiled", "cases"}
    assert [case["name"] for case in report["cases"]] == ["64x2 T=32 B=2 bf16 full", "32x3 T=16 B=4 bf16 full"]
    for case in report["cases"]:
        assert case.keys() == {
            "name", "shape", "precision", "recompute", "num_samples", "compiled", "step_s", "predicted_step_s", "low_s",
            "high_s", "tokens_per_s", "allocated_bytes", "reserved_bytes", "predicted_bytes", "peer_step_s", "ratio",
            "ratio_quartiles",
        }  # fmt: skip
        assert case["tokens_per_s"] == 64 / case["step_s"]
        assert case["low_s"] <= case["predicted_step_s"] <= case["high_s"]
    written = path.stat().st_mtime_ns
    run(path)
    assert path.stat().st_mtime_ns == written
