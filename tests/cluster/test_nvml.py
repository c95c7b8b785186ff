"""NVML: every answer ends up in the record, what has no answer is None, and `pynvml` has all that is asked."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from heliostat.cluster.nvml import as_linux_writes, read, read_here
from heliostat.cluster.nvml_api import NvmlApi
from heliostat.cluster.nvml_record import NvLinkState, NvmlRecord
from heliostat.errors import ServiceError
from tests.cluster.boxes import FIXTURES, nvml_record, reference
from tests.cluster.fake_nvml import FakeNvml

RECORDS = sorted(FIXTURES.glob("nvml_*.json"))
FUNCTIONS = sorted(name for name in vars(NvmlApi) if name.startswith("nvml"))
T4 = NvmlRecord.model_validate_json((FIXTURES / "nvml_t4.json").read_text())


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_reads_back(path: Path) -> None:
    record = NvmlRecord.model_validate_json(path.read_text())
    assert read(FakeNvml(record)) == record


@pytest.mark.parametrize(("name", "switched"), [("dgx1_v100_8gpu_1nic.txt", False), ("hgx_h100_8gpu_nv18.txt", True)])
def test_a_box_with_direct_links_and_one_with_switches_read_back(name: str, switched: bool) -> None:  # noqa: FBT001
    record = nvml_record(reference(name), "some GPU", switched=switched)
    assert read(FakeNvml(record)) == record


def test_a_driver_without_gpus() -> None:
    assert read(FakeNvml(NvmlRecord())) == NvmlRecord()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pynvml_has_the_functions_of_the_protocol(function: str) -> None:
    num_arguments = len(inspect.signature(getattr(NvmlApi, function)).parameters) - 1
    inspect.signature(getattr(pynvml, function)).bind(*range(num_arguments))


def test_a_lost_gpu_is_noted_and_the_others_are_read() -> None:
    box = nvml_record(reference("workstation_4gpu_nv1_pairs_sys.txt"), "some GPU")
    rest = tuple(gpu for gpu in box.gpus if gpu.index != 1)
    record = read(FakeNvml(box.model_copy(update={"gpus": rest})))
    assert record.gpus == rest
    assert {(pair.a, pair.b) for pair in record.pairs} == {(0, 2), (0, 3), (2, 3)}
    assert record.errors == ("driver: nvmlDeviceGetHandleByIndex(1): GPU is lost",)


def test_a_question_that_fails_is_noted_and_one_that_is_not_supported_is_not() -> None:
    timeout = pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
    unknown = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    record = read(
        FakeNvml(T4, {"nvmlDeviceGetTemperature": timeout, "nvmlDeviceGetCurrentClocksThrottleReasons": unknown})
    )
    assert record.errors == ("GPU 0: nvmlDeviceGetTemperature(0): Timeout",)
    assert record.gpus == (T4.gpus[0].model_copy(update={"temperature_c": None, "throttle_reasons": None}),)


def test_answers_newer_than_this_module_do_no_harm() -> None:
    box = nvml_record(reference("workstation_4gpu_nv1_pairs_sys.txt"), "some GPU")
    newer = {
        "nvmlDeviceGetCurrentClocksThrottleReasons": 1 << 40 | pynvml.nvmlClocksThrottleReasonHwSlowdown,
        "nvmlDeviceGetNvLinkState": 9,
        "nvmlDeviceGetNvLinkVersion": 99,
        "nvmlDeviceGetTopologyCommonAncestor": 60,
    }
    record = read(FakeNvml(box, newer))
    assert record.gpus[0].throttle_reasons == ("hw_slowdown", hex(1 << 40))
    assert {(link.state, link.version) for link in record.gpus[0].nvlinks} == {(NvLinkState.UNKNOWN, None)}
    assert record.pairs == ()


@pytest.mark.parametrize(
    ("bus_id", "linux"),
    [
        ("00000000:61:00.0", "0000:61:00.0"),
        ("0000000A:C1:00.0", "000a:c1:00.0"),
        ("00010000:3B:00.0", "10000:3b:00.0"),
        ("FFFFFFFF:FF:FF.F", "ffffffff:ff:ff.f"),
    ],
)
def test_bus_ids_are_those_of_linux(bus_id: str, linux: str) -> None:
    assert as_linux_writes(bus_id) == linux


def test_the_command_prints_what_this_node_has() -> None:
    """With a GPU the printed record is one that reads back; without one the command says so."""
    command = [sys.executable, "-m", "heliostat.cluster.nvml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if read_here() is None:
        assert (done.returncode, done.stderr) == (1, "there is no NVIDIA driver on this node\n")
    else:
        record = NvmlRecord.model_validate(json.loads(done.stdout))
        assert read(FakeNvml(record)).gpus == record.gpus


def test_a_driver_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(ServiceError, match="does not answer") as caught:
        read_here()
    assert "version mismatch" in str(caught.value)
