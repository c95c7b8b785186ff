"""A Ray head node of our own on this machine, as a child process that may be left up. No `import ray` is needed.

It keeps to itself: a temporary folder and an authentication token of its own, free ports throughout, a dashboard on
loopback, so that it neither joins nor disturbs another Ray cluster on the machine.
"""

import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from heliostat.cluster.ports import free_ports
from heliostat.cluster.process import ManagedProcess, spawn
from heliostat.errors import ServiceError
from heliostat.values import Frozen

START_TIMEOUT_S = 90.0
"""6 s on two idle cores; a loaded machine takes ten times that."""


class LocalRay(Frozen):
    """A running head node: its keeper process, where to connect, and what to remove with it."""

    keeper: ManagedProcess
    address: str
    dashboard_url: str
    temp_dir: str
    token_path: str

    def environment(self) -> dict[str, str]:
        """Variables that a process needs to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.token_path}

    def stop(self) -> None:
        """End every process of the cluster, also those that lost their parent, and remove its temporary folder."""
        self.keeper.stop()
        left = [process for process in psutil.process_iter() if _mentions(process, f"{self.temp_dir}/")]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.temp_dir, ignore_errors=True)


def make_temp_dir() -> str:
    """Make a temporary folder for a cluster: short, because the paths of Ray's sockets must stay below 108 bytes."""
    return tempfile.mkdtemp(prefix="hs-", dir="/tmp")  # mkdtemp makes it ours alone


def start(*, num_cpus: int, temp_dir: str, env: Mapping[str, str], token_path: Path, log: Path) -> LocalRay:
    """Start a head node with `num_cpus` cores and wait until it can be joined.

    Args:
        num_cpus: cores that Ray may hand out.
        temp_dir: from `make_temp_dir`; it goes when the cluster stops.
        env: variables for every Ray process, beside ours.
        token_path: file of the authentication token, made when missing.
        log: file for what the head node prints.

    Raises:
        ServiceError: it ended or did not come up in time; the end of its log is in the message.

    """
    _make_token(token_path)
    dashboard, agent, client, metrics = free_ports(4)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--port=0", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--metrics-export-port={metrics}", f"--num-cpus={num_cpus}", f"--temp-dir={temp_dir}"),
    ]
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # Ray waits 20 s for Serve's proxies, which end with it
        "RAY_worker_niceness": "0",  # Ray nices workers to 15, which starves them on a shared machine
    }
    offset = log.stat().st_size if log.exists() else 0
    keeper = spawn("Ray", command, env={**env, **ours}, log=log)
    try:
        address = _wait_for_address(keeper, log, offset)
    except BaseException:
        keeper.stop()
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    url = f"http://127.0.0.1:{dashboard}"
    return LocalRay(
        keeper=keeper.model_copy(update={"url": url}),
        address=address,
        dashboard_url=url,
        temp_dir=temp_dir,
        token_path=str(token_path),
    )


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _make_token(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def _wait_for_address(keeper: ManagedProcess, log: Path, offset: int) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        text = log.read_bytes()[offset:].decode(errors="replace")
        if match := re.search(r"--address='([^']+)'", text):
            return match.group(1)
        if not keeper.alive():
            break
        time.sleep(0.05)
    tail = log.read_text(errors="replace").splitlines()[-15:]
    raise ServiceError(
        "the local Ray cluster did not come up",
        where=str(log),
        got="\n    ".join(tail),
        causes=("too little memory or disk", "the machine is very busy"),
        next_step=f"read {log}",
    )
