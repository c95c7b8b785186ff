"""A slow device of an emulated cluster: real passes, in which it rests for as long as they fall short of its time.

The rest is counted in processor time of the pass. So other processes on the machine, and waiting for other ranks within
a pass, make no device slower than it is to be; and devices that rest leave their cores to others, so that a machine can
stand for more devices than it has cores. Only passes are slowed down: the optimizer's update takes what it takes.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from heliostat.cluster.emulated_node import EmulatedNode


def factor_here() -> float:
    """How many times as long the device of this process takes as the fastest of its cluster; 1.0 without emulation.

    Raises:
        UserError: the description of the emulated node cannot be read, or it has no such device.
    """
    node = EmulatedNode.here()
    return 1.0 if node is None else node.slowdown(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


class Pace:
    """Makes passes take `factor` times as long."""

    def __init__(self, factor: float) -> None:
        self._extra = factor - 1.0
        self._began: float | None = None
        """Processor time at the last rest of the pass that runs."""

    @property
    def is_slow(self) -> bool:
        """Whether it makes a difference."""
        return self._extra > 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A pass runs in here; at its end comes what is left of its rest."""
        if not self.is_slow:
            yield
            return
        self._began = time.thread_time()
        yield
        self.rest()
        self._began = None

    def rest(self) -> None:
        """Rest for what has run of the pass since the last time."""
        if self._began is not None:
            time.sleep(self._extra * (time.thread_time() - self._began))
            self._began = time.thread_time()
