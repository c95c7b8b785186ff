"""The report of a node: this one, without a driver or with one that fails, and one that pretends to be another."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cluster import nvml
from heliostat.cluster.emulated_node import VARIABLE
from heliostat.cluster.node_report import NodeReport, probe
from heliostat.cluster.nvml_record import NvmlRecord
from heliostat.cluster.sysfs import SysfsRecord
from heliostat.errors import ServiceError, UserError


def test_this_node() -> None:
    report = probe()
    assert NodeReport.model_validate_json(report.model_dump_json()) == report
    assert report.versions["python"] == platform.python_version()
    assert report.versions["ray"].startswith("2.")
    assert report.num_cpus > 0
    assert report.memory_bytes > 2**28
    assert report.emulates == ""


def test_probing_loads_neither_torch_nor_ray() -> None:
    code = "import sys; from heliostat.cluster.node_report import probe; probe(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "mlflow", "pandas"} & set(done.stdout.split())


def test_what_the_driver_says_is_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    record = NvmlRecord(driver_version="550.54.15", cuda_version="12.4", errors=("GPU 1: GPU is lost",))
    monkeypatch.setattr(nvml, "read_here", lambda: record)
    report = probe()
    assert report.gpus == record
    assert (report.versions["driver"], report.versions["cuda"]) == ("550.54.15", "12.4")
    assert "nvml" not in report.versions
    assert report.errors == ("GPU 1: GPU is lost",)


def test_a_driver_that_fails_and_a_node_without_sys_are_errors_of_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise ServiceError("the NVIDIA driver of this node does not answer", got="version mismatch")

    monkeypatch.setattr(nvml, "read_here", fail)
    report = probe(tmp_path / "sys")
    assert (report.gpus, report.pci) == (None, SysfsRecord())
    assert report.errors == (
        "the NVIDIA driver of this node does not answer: version mismatch",
        f"there is no {tmp_path / 'sys'}: where GPUs and NICs are on the PCI bus is unknown",
    )


def test_an_emulated_node_tells_its_description_and_nothing_of_its_own_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    description = tmp_path / "node.json"
    description.write_text(json.dumps({"machine": "8 x V100"}))
    monkeypatch.setenv(VARIABLE, str(description))
    report = probe()
    assert json.loads(report.emulates) == {"machine": "8 x V100"}
    assert (report.gpus, report.pci) == (None, SysfsRecord())


def test_an_emulated_node_without_its_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.json"))
    with pytest.raises(UserError, match="cannot be read") as caught:
        probe()
    assert caught.value.where == str(tmp_path / "gone.json")
