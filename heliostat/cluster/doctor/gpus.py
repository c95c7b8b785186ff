"""Are the GPUs in order, as far as the driver tells? Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from heliostat.cluster.doctor.finding import Finding, Severity
from heliostat.cluster.live_topology import name_of
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import Gpu

_THROTTLES: dict[str, tuple[Severity, str, str]] = {
    "hw_thermal_slowdown": ("error", "too hot", "look at fans, air flow and dust"),
    "hw_power_brake_slowdown": ("error", "braked by its power supply", "look at the power supplies of the node"),
    "hw_slowdown": ("error", "slowed down by its hardware: heat or power", "look at cooling and power supplies"),
    "sw_thermal_slowdown": ("warning", "slowed down by the driver to stay cool", "look at fans, air flow and dust"),
}
"""Why clocks are low, where that is a fault. Idleness, chosen clocks and the power cap are none."""
_IDLE = "gpu_idle"
_XIDS_OF_PROGRAMS = {13, 31, 43, 45}
"""XID errors that a faulty program causes, as a rule: NVIDIA's XID catalogue."""


class _Siblings(NamedTuple):
    """The most NVLinks that GPUs of one product have up, in nodes with equally many of them."""

    same_place: int
    """At the same index of a node: boards connect these alike."""
    any_place: int
    """At any index: only some GPUs of a node may have a bridge."""


def check_gpus(reports: Mapping[str, NodeReport], names: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about every GPU of every node."""
    siblings = _siblings(reports)
    for node_id, report in reports.items():
        node = names[node_id]
        yield from _errors(node, report)
        yield from _xids(node, report)
        gpus = report.gpus.gpus if report.gpus else ()
        for gpu in gpus:
            yield from _memory(node, gpu)
            yield from _throttling(node, gpu)
            yield from _pcie(node, gpu)
            yield from _nvlinks(node, gpu, siblings[gpu.name, len(gpus), gpu.index])


def _errors(node: str, report: NodeReport) -> Iterator[Finding]:
    """Questions without an answer: a fault where the driver was asked, a gap where the system was."""
    of_gpus = report.gpus.errors if report.gpus else ()
    for text in report.errors:
        if text in of_gpus or "driver" in text:
            next_step = "nvidia-smi; dmesg | grep -i -e xid -e nvrm"
            yield Finding(severity="error", node=node, what=text, next_step=next_step)
        else:
            next_step = "run Ray where this can be read, or describe the node in a cluster file"
            yield Finding(severity="warning", node=node, what=text, next_step=next_step)


def _xids(node: str, report: NodeReport) -> Iterator[Finding]:
    """One finding for each GPU and kind of error."""
    names = {gpu.bus_id: name_of(gpu) for gpu in report.gpus.gpus} if report.gpus else {}
    for (bus_id, code), count in Counter((xid.bus_id, xid.code) for xid in report.xids).items():
        last = next(xid.text for xid in reversed(report.xids) if (xid.bus_id, xid.code) == (bus_id, code))
        times = "" if count == 1 else f" {count} times"
        yield Finding(
            severity="warning" if code in _XIDS_OF_PROGRAMS else "error",
            node=node,
            what=f"{names.get(bus_id, bus_id)} reported XID {code}{times} since the node was started: {last}",
            next_step=f"look XID {code} up in NVIDIA's list; dmesg | grep -i xid",
        )


def _memory(node: str, gpu: Gpu) -> Iterator[Finding]:
    if gpu.ecc_uncorrected:
        yield Finding(
            severity="error",
            node=node,
            what=f"{name_of(gpu)} had {gpu.ecc_uncorrected} uncorrectable memory errors since its driver was loaded",
            next_step=f"take the node out of use and reset the GPU: nvidia-smi --gpu-reset -i {gpu.index}",
        )
    if gpu.remap_failed:
        yield Finding(
            severity="error",
            node=node,
            what=f"{name_of(gpu)} could not remap a bad row of its memory",
            next_step="have it replaced: its maker takes such a GPU back",
        )
    for pending, what in ((gpu.remap_pending, "rows"), (gpu.retirement_pending, "pages")):
        if pending:
            yield Finding(
                severity="warning",
                node=node,
                what=f"{name_of(gpu)} has bad {what} of memory that wait for a reset to be put out of use",
                next_step=f"when the node is free: nvidia-smi --gpu-reset -i {gpu.index}",
            )


def _throttling(node: str, gpu: Gpu) -> Iterator[Finding]:
    for reason in gpu.throttle_reasons or ():
        if reason in _THROTTLES:
            severity, what, next_step = _THROTTLES[reason]
            warm = "" if gpu.temperature_c is None else f", {gpu.temperature_c} degrees C"
            yield Finding(
                severity=severity, node=node, what=f"{name_of(gpu)} is {what} ({reason}{warm})", next_step=next_step
            )


def _pcie(node: str, gpu: Gpu) -> Iterator[Finding]:
    if gpu.pcie_lanes and gpu.pcie_lanes_max and gpu.pcie_lanes < gpu.pcie_lanes_max:
        yield Finding(
            severity="error",
            node=node,
            what=f"{name_of(gpu)} has {gpu.pcie_lanes} of {gpu.pcie_lanes_max} PCIe lanes",
            next_step="reseat the card or its riser",
        )
    idle = _IDLE in (gpu.throttle_reasons or ())
    if gpu.pcie_generation and gpu.pcie_generation_max and gpu.pcie_generation < gpu.pcie_generation_max and not idle:
        yield Finding(
            severity="warning",
            node=node,
            what=f"{name_of(gpu)} uses PCIe generation {gpu.pcie_generation} of {gpu.pcie_generation_max}",
            next_step="look again while it works: a GPU without work lowers it; else reseat the card or its riser",
        )


def _nvlinks(node: str, gpu: Gpu, siblings: _Siblings) -> Iterator[Finding]:
    num_up = _num_up(gpu)
    down = [str(link.number) for link in gpu.nvlinks if not link.is_up]
    have = f"{name_of(gpu)} has {num_up} NVLinks up, down: {', '.join(down) or 'none'}"
    severity: Severity = "warning"
    if num_up < siblings.same_place or 0 < num_up < siblings.any_place:
        severity, what = "error", f"{have}; equal GPUs have {max(siblings)} up"
    elif num_up < siblings.any_place:
        what = f"{have}; others of its kind have {max(siblings)} up"
    elif 0 < num_up < len(gpu.nvlinks):
        what = f"{have}; the same on every GPU of its kind here, so perhaps its board connects no more"
    else:
        return
    yield Finding(
        severity=severity,
        node=node,
        what=what,
        next_step="nvidia-smi nvlink -s; look at bridges; with NVSwitches: systemctl status nvidia-fabricmanager",
    )


def _siblings(reports: Mapping[str, NodeReport]) -> dict[tuple[str, int, int], _Siblings]:
    """What to hold a GPU against, by its product, the number of GPUs in its node, and its index."""
    found: dict[tuple[str, int, int], int] = {}
    for gpus in (report.gpus.gpus for report in reports.values() if report.gpus):
        for gpu in gpus:
            key = gpu.name, len(gpus), gpu.index
            found[key] = max(found.get(key, 0), _num_up(gpu))
    return {
        (name, count, index): _Siblings(
            same_place=most,
            any_place=max(up for (other, size, _), up in found.items() if (other, size) == (name, count)),
        )
        for (name, count, index), most in found.items()
    }


def _num_up(gpu: Gpu) -> int:
    return sum(link.is_up for link in gpu.nvlinks)
