"""Faults of GPUs, one at a time on a machine that is otherwise in order."""

from typing import Any

import pytest

from heliostat.cluster.nvml_record import NvLinkState, NvmlRecord
from heliostat.cluster.xid import Xid
from tests.cluster.boxes import FIXTURES
from tests.cluster.doctor.nodes import cluster, found, gpu, report, told

FOUR = cluster()


def with_fault(**fields: Any) -> list[str]:
    return told(found(FOUR, report("h", gpu(0), gpu(1), gpu(2), gpu(3, **fields))))


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ({"ecc_uncorrected": 3}, "error a100-0: GPU3 had 3 uncorrectable memory errors since its driver was loaded"),
        ({"remap_failed": True}, "error a100-0: GPU3 could not remap a bad row of its memory"),
        ({"remap_pending": True}, "warning a100-0: GPU3 has bad rows of memory that wait for a reset"),
        ({"retirement_pending": True}, "warning a100-0: GPU3 has bad pages of memory that wait for a reset"),
        (
            {"throttle_reasons": ("hw_thermal_slowdown",), "temperature_c": 93},
            "error a100-0: GPU3 is too hot (hw_thermal_slowdown, 93 degrees C)",
        ),
        ({"throttle_reasons": ("hw_power_brake_slowdown",)}, "error a100-0: GPU3 is braked by its power supply"),
        ({"throttle_reasons": ("sw_thermal_slowdown",)}, "warning a100-0: GPU3 is slowed down by the driver"),
        ({"pcie_lanes": 8}, "error a100-0: GPU3 has 8 of 16 PCIe lanes"),
        ({"pcie_generation": 3}, "warning a100-0: GPU3 uses PCIe generation 3 of 4"),
        ({"links_down": (2, 7)}, "error a100-0: GPU3 has 10 NVLinks up, down: 2, 7; equal GPUs have 12 up"),
        ({"links_down": range(12)}, "warning a100-0: GPU3 has 0 NVLinks up"),
    ],
)
def test_faults(fault: dict[str, Any], finding: str) -> None:
    [line] = with_fault(**fault)
    assert line.startswith(finding)


@pytest.mark.parametrize(
    "fields",
    [
        {"throttle_reasons": ("gpu_idle",), "pcie_generation": 1},
        {"throttle_reasons": ("sw_power_cap", "applications_clocks_setting")},
        {"ecc_uncorrected": None, "remap_failed": None, "throttle_reasons": None, "pcie_lanes": None},
    ],
)
def test_what_is_no_fault(fields: dict[str, Any]) -> None:
    assert with_fault(**fields) == []


def test_a_link_that_sleeps_is_up() -> None:
    links = tuple(link.model_copy(update={"state": NvLinkState.SLEEP}) for link in gpu(3).nvlinks)
    assert with_fault(nvlinks=links) == []


def test_the_same_gpu_of_another_node_is_what_a_gpu_is_held_against() -> None:
    """A workstation with one bridge over GPU2 and GPU3; in the second one the bridge is loose."""
    bridged = [gpu(index, num_links=4, links_down=range(4) if index < 2 else ()) for index in range(4)]
    loose = [gpu(index, num_links=4, links_down=range(4)) for index in range(4)]
    findings = found(cluster({"count": 2}), report("a", *bridged), report("b", *loose))
    errors = [line for line in told(findings) if line.startswith("error")]
    assert [line.partition(":")[2].split()[0] for line in errors] == ["GPU2", "GPU3"]
    assert all(line.startswith("error a100-1") for line in errors)


def test_links_that_are_down_everywhere_may_be_the_board() -> None:
    gpus = [gpu(index, links_down=(11,)) for index in range(4)]
    findings = told(found(FOUR, report("h", *gpus)))
    assert len(findings) == 4
    assert all(line.startswith("warning") and "perhaps its board" in line for line in findings)


def test_questions_without_an_answer() -> None:
    lost, silent = "GPU 3: nvmlDeviceGetHandleByIndex: GPU is lost", "the NVIDIA driver of this node does not answer: x"
    gap = "there is no /sys: where GPUs and NICs are on the PCI bus is unknown"
    record = NvmlRecord(gpus=(gpu(0),), errors=(lost,))
    assert told(found(FOUR, report("h", gpus=record, errors=(lost,)))) == [f"error a100-0: {lost}"]
    assert told(found(FOUR, report("h", errors=(silent, gap)))) == [f"error a100-0: {silent}", f"warning a100-0: {gap}"]


def test_records_of_nodes_can_be_examined() -> None:
    for path in sorted(FIXTURES.glob("nvml_*.json")):
        record = NvmlRecord.model_validate_json(path.read_text())
        for one in found(FOUR, report("h").model_copy(update={"gpus": record})):
            assert one.what
            assert one.next_step


def test_xid_errors_are_told_once_for_each_gpu_and_kind() -> None:
    xids = (
        Xid(bus_id="0000:02:00.0", code=31, text="first"),
        Xid(bus_id="0000:02:00.0", code=31, text="last"),
        Xid(bus_id="0000:99:00.0", code=79, text="fallen off the bus"),
    )
    lines = told(found(FOUR, report("h", *(gpu(index) for index in range(4)), xids=xids)))
    assert lines == [
        "error a100-0: 0000:99:00.0 reported XID 79 since the node was started: fallen off the bus",
        "warning a100-0: GPU2 reported XID 31 2 times since the node was started: last",
    ]
