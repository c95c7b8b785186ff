"""What one node says of itself: made on the node by `probe`, understood elsewhere."""

import os
import platform
import socket
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import Field

from heliostat.cluster import nvml, sysfs
from heliostat.cluster.emulated_node import VARIABLE
from heliostat.cluster.nvml_record import NvmlRecord
from heliostat.cluster.sysfs import SysfsRecord
from heliostat.cluster.xid import Xid, read_xids
from heliostat.errors import ServiceError, UserError
from heliostat.values import Frozen

_PACKAGES = {
    "heliostat": ("heliostat",),
    "ray": ("ray",),
    "torch": ("torch",),
    "nccl": ("nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-nccl-cu11"),
}


class NodeReport(Frozen):
    """One node at one moment, in its own words."""

    hostname: str
    platform: str
    """Operating system and processor: `Linux-6.8.0-x86_64-with-glibc2.39`."""
    versions: dict[str, str]
    """Of `python`, `heliostat`, `ray`, `torch`, `nccl`, `driver`, `nvml` and `cuda`, the newest that the driver runs.
    What is not installed is absent."""
    num_cpus: int
    memory_bytes: int
    gpus: NvmlRecord | None = None
    """None without an NVIDIA driver, or one that does not answer."""
    xids: tuple[Xid, ...] = ()
    """Errors of GPUs in the kernel's log since the node was started."""
    pci: SysfsRecord = Field(default_factory=SysfsRecord)
    errors: tuple[str, ...] = ()
    """What could not be asked, and why."""
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES of the node's raylet: what Ray may hand out of its GPUs; None where it is not set."""
    emulates: str = ""
    """The description of the node that this one pretends to be; then nothing of its own hardware is told but its CPUs
    and memory."""


def probe(root: Path = sysfs.SYS) -> NodeReport:
    """Report on this node; the `sysfs` tree is at `root`.

    Raises:
        UserError: the file that an emulated node is described in cannot be read.
    """
    report = NodeReport(
        hostname=socket.gethostname(),
        platform=platform.platform(),
        versions=_installed(),
        num_cpus=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )
    description = os.environ.get(VARIABLE)
    if description:
        return report.model_copy(update={"emulates": _read_description(description)})
    gpus, errors = _ask_driver()
    xids = read_xids() if gpus is not None else ()
    if xids is None:
        errors += ("the kernel's log may not be read: XID errors are unknown",)
    if not root.is_dir():
        errors += (f"there is no {root}: where GPUs and NICs are on the PCI bus is unknown",)
    return report.model_copy(
        update={
            "versions": report.versions | _driver_versions(gpus),
            "gpus": gpus,
            "xids": xids or (),
            "pci": sysfs.read(root),
            "errors": errors,
        }
    )


def _installed() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name, packages in _PACKAGES.items():
        for package in packages:
            try:
                versions.setdefault(name, metadata.version(package))
            except metadata.PackageNotFoundError:
                continue
    return versions


def _read_description(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise UserError(
            "the description of this emulated node cannot be read",
            where=path,
            got=str(error),
            causes=(f"{VARIABLE} is set by hand", "the emulation was stopped while the node was asked"),
        ) from error


def _ask_driver() -> tuple[NvmlRecord | None, tuple[str, ...]]:
    try:
        gpus = nvml.read_here()
    except ServiceError as error:
        return None, (f"{error.what}: {error.got}",)
    return gpus, gpus.errors if gpus is not None else ()


def _driver_versions(gpus: NvmlRecord | None) -> dict[str, str]:
    if gpus is None:
        return {}
    told = {"driver": gpus.driver_version, "nvml": gpus.nvml_version, "cuda": gpus.cuda_version}
    return {name: version for name, version in told.items() if version is not None}
