"""XID errors: what the NVIDIA driver writes about a GPU into the kernel's log."""

import os
import re
from pathlib import Path

from pydantic import NonNegativeInt

from heliostat.values import Frozen

KERNEL_LOG = Path("/dev/kmsg")
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+),?\s*(.*)")
_RECORD_BYTES = 8192
"""The kernel hands out one record per read, of at most this size (linux/printk.h)."""


class Xid(Frozen):
    """One error."""

    bus_id: str
    """As `nvml_record.Gpu.bus_id`: `0000:61:00.0`."""
    code: NonNegativeInt
    """As in NVIDIA's list of XID errors: 79 is a GPU that has fallen off the bus."""
    text: str


def read_xids(log: Path = KERNEL_LOG) -> tuple[Xid, ...] | None:
    """The errors since the node was started, oldest first; None where the kernel's log may not be read."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    lines: list[str] = []
    with os.fdopen(descriptor, "rb", buffering=0) as records:
        while True:
            try:
                record = records.read(_RECORD_BYTES)
            except BrokenPipeError:
                continue  # overwritten while we read: the next one is there
            except OSError:
                return None
            if not record:
                return parse_xids("".join(lines))
            lines.append(record.decode(errors="replace"))


def parse_xids(text: str) -> tuple[Xid, ...]:
    """The errors in a kernel log, in the form of /dev/kmsg or of `dmesg`."""
    return tuple(
        Xid(bus_id=_full(match[1]), code=int(match[2]), text=match[3].strip()) for match in _XID.finditer(text)
    )


def _full(bus_id: str) -> str:
    """`0000:61:00` with its function: the driver leaves it out."""
    known = bus_id.lower()
    return known if "." in known else f"{known}.0"
