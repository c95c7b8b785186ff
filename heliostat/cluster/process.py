"""Child processes that may outlive the command that started them.

A process is known by its pid *and* the time it started, so a recycled pid is never taken for it, and it is stopped by
signalling its own session, never by name.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from heliostat.values import Frozen

START_TIME_SLACK_S = 1.0
"""psutil reports start times in ticks of 10 ms; a recycled pid differs by far more."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this very process by pid, kept so that they can be reaped."""


class ManagedProcess(Frozen):
    """A process of ours: what it is, its pid, when it started, and where it answers."""

    what: str
    pid: int
    started: float
    url: str

    def alive(self) -> bool:
        """Tell whether exactly this process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < START_TIME_SLACK_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def stop(self, grace_s: float = 20.0) -> None:
        """Ask the process and its children to end; after `grace_s` end what is left of them."""
        if not self.alive():
            return
        process = psutil.Process(self.pid)
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=grace_s)
        for survivor in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()
        psutil.wait_procs(left, timeout=5)
        if child := _children.pop(self.pid, None):
            child.wait()


def spawn(what: str, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> ManagedProcess:
    """Start `command` in a session of its own, with `env` added to ours and all output appended to `log`.

    A session of its own, because Ctrl-C in the terminal must reach the command that stops things in order, not them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  # the command is ours, not the user's
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    return ManagedProcess(what=what, pid=process.pid, started=psutil.Process(process.pid).create_time(), url="")
