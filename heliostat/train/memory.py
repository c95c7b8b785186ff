"""How much memory a piece of work adds to this process at its peak."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import nn

_RESET_PEAK = "5"
"""Written to /proc/self/clear_refs it resets the peak resident size to the present one (proc_pid_clear_refs(5))."""


class PeakMemory:
    """Counts from its creation on.

    Where the kernel does not let a process reset its own peak, memory that was freed before counts too.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        self._before_bytes = psutil.Process(os.getpid()).memory_info().rss

    def added_bytes(self) -> int:
        """Resident bytes at the peak since then, less those resident then."""
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
            peak = int(line.split()[1]) * 1024
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return max(0, peak - self._before_bytes)


def warm_up() -> None:
    """Make torch load what it loads at its first backward pass and update: 200 MB that no model asked for."""
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()
