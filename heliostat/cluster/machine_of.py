"""Translates what a node says of itself into a machine of the cluster spec. Pure.

Nothing of the single node is in the machine, so that equal nodes give equal machines.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from heliostat.cluster.catalogue import GIB, Catalogue, DeviceType
from heliostat.cluster.live_topology import name_of, topology_of
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import Gpu
from heliostat.cluster.sysfs import AMD, NVIDIA
from heliostat.errors import UserError
from heliostat.values import Frozen

CPU_MEMORY_SHARE = 0.5
"""Part of a node's memory that ranks on its CPUs may plan with; the object store and other processes get the rest."""
_MEMORY_STEP_BYTES = GIB // 4
"""Host memory is rounded down to it: kernel and firmware keep a little more or less on equal nodes."""


class Found(Frozen):
    """The hardware of one node."""

    machine: Machine
    """Named after its devices; different machines may have one name. It has none where the node has none to give."""
    uuids: tuple[str, ...]
    """Of its devices in their order; empty for CPUs."""
    remarks: tuple[str, ...]
    """What was left out or not understood, in words."""


def machine_of(report: NodeReport, catalogue: Catalogue, *, cpus_per_device: int) -> Found:
    """The machine that a node describes.

    Args:
        report: what the node says; an emulated one says nothing of its devices here.
        catalogue: knows the types of its GPUs.
        cpus_per_device: cores of each CPU device of a node without GPUs.
    """
    gpus = report.gpus.gpus if report.gpus is not None else ()
    types = {gpu.name: _find(catalogue, gpu.name) for gpu in gpus}
    devices = tuple(_gpu_devices(gpus, types) if gpus else _cpu_devices(report, cpus_per_device))
    uuids = tuple(device.uuid for device in devices)
    machine = Machine(
        name=_name(devices, report.num_cpus),
        devices=tuple(device.model_copy(update={"uuid": ""}) for device in devices),
        topology=topology_of(report.gpus, report.pci) if report.gpus is not None and gpus else None,
        num_cpus=report.num_cpus,
        memory_bytes=_steady(report.memory_bytes),
    )
    remarks = (*_remarks_on_gpus(gpus, types), *_remarks_on_pci(report))
    if not gpus and not devices:
        remarks += (f"its {report.num_cpus} cores are fewer than the {cpus_per_device} of a CPU device",)
    return Found(machine=machine, uuids=uuids if any(uuids) else (), remarks=remarks)


def _find(catalogue: Catalogue, name: str) -> DeviceType | None:
    try:
        return catalogue.find(name)
    except UserError:
        return None


def _gpu_devices(gpus: Sequence[Gpu], types: Mapping[str, DeviceType | None]) -> Iterator[Device]:
    """Whole GPUs under their own index, then MIG instances, numbered on behind the last of them."""
    names = {name: known.name if known else name for name, known in types.items()}
    whole = [gpu for gpu in gpus if not gpu.mig]
    for gpu in whole:
        if gpu.memory_bytes:
            yield Device(type=names[gpu.name], index=gpu.index, memory_bytes=gpu.memory_bytes, uuid=gpu.uuid)
    index = count(max((gpu.index for gpu in whole), default=-1) + 1)
    for gpu in gpus:
        for part in gpu.instances:
            if part.memory_bytes:
                yield Device(
                    type=names[gpu.name],
                    index=next(index),
                    memory_bytes=part.memory_bytes,
                    gpu=gpu.index,
                    mig=part.profile,
                    uuid=part.uuid,
                )


def _cpu_devices(report: NodeReport, cpus_per_device: int) -> Iterator[Device]:
    num_devices = report.num_cpus // cpus_per_device
    for index in range(num_devices):
        memory_bytes = int(_steady(report.memory_bytes) * CPU_MEMORY_SHARE) // num_devices
        yield Device(type="cpu", index=index, memory_bytes=memory_bytes)


def _steady(memory_bytes: int) -> int:
    return memory_bytes // _MEMORY_STEP_BYTES * _MEMORY_STEP_BYTES or memory_bytes


def _name(devices: Sequence[Device], num_cpus: int) -> str:
    """`8x-A100-80GB-SXM`, `2-cores`."""
    counts = Counter(re.sub(r"[/ ]", "-", device.kind) for device in devices if device.type != "cpu")
    return "+".join(f"{number}x-{kind}" for kind, number in counts.items()) or f"{num_cpus}-cores"


def _remarks_on_gpus(gpus: Sequence[Gpu], types: Mapping[str, DeviceType | None]) -> Iterator[str]:
    for name, known in types.items():
        if known is None:
            yield (
                f"the catalogue does not know the product '{name}': measure it with `heliostat cluster calibrate`, "
                "or describe it under `types` in a cluster file"
            )
            continue
        profiles = {part.profile for gpu in gpus if gpu.name == name for part in gpu.instances}
        for profile in sorted(profiles - {one.name for one in known.mig}):
            yield f"the catalogue has no MIG profile '{profile}' of {known.name}"
    for gpu in gpus:
        if gpu.mig and not gpu.instances:
            yield (
                f"{name_of(gpu)} is in MIG mode without an instance: make some with `nvidia-smi mig -cgi`, "
                f"or turn the mode off with `nvidia-smi -i {gpu.index} -mig 0`"
            )
        elif not all(part.memory_bytes for part in (gpu.instances if gpu.mig else (gpu,))):
            yield f"{name_of(gpu)} does not tell its memory: it was left out"


def _remarks_on_pci(report: NodeReport) -> Iterator[str]:
    shown = {gpu.bus_id for gpu in report.gpus.gpus} if report.gpus is not None else set()
    for vendor, name, why in (
        (NVIDIA, "NVIDIA", "the driver is not loaded, has lost them, or this container was not given them"),
        (AMD, "AMD", "describe this node in a cluster file, with the output of `rocm-smi --showtopotype`"),
    ):
        hidden = [one.bus_id for one in report.pci.gpus if one.vendor == vendor and one.bus_id not in shown]
        if hidden:
            yield f"{name} GPUs that NVML does not show are at {', '.join(hidden)}: {why}"
    down = [nic.name for nic in report.pci.nics if nic.rdma and not nic.is_up]
    if down:
        yield f"RDMA NICs without a link were left out: {', '.join(down)}"
