"""A Ray cluster of our own on this machine, as child processes that may be left up. No `import ray` is needed.

It keeps to itself: a temporary folder and an authentication token of its own, free ports throughout, a dashboard on
loopback, so that it neither joins nor disturbs another Ray cluster on the machine. Usually it is a head node alone; an
emulation adds a node for each that it pretends to have.
"""

import contextlib
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

import psutil
from pydantic import Field

from heliostat.cluster.ports import free_ports
from heliostat.cluster.process import ManagedProcess, spawn
from heliostat.errors import ServiceError
from heliostat.values import Frozen

START_TIMEOUT_S = 90.0
"""6 s on two idle cores; a loaded machine takes ten times that."""
NUM_STARTING = max(4, os.cpu_count() or 1)
"""Nodes that start at once: each takes 4 s of a core, and Ray gives up on one that takes 30 s."""
_FIRST_NODE = IPv4Address("127.0.0.2")
"""Every node beside the head has an address of its own; Linux takes all of 127.0.0.0/8 for this machine."""
_OPTIONS = ("--block", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0")
"""Ports of workers are the system's choice: nodes of one machine would race for those of Ray's own range."""
_OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # Ray waits 20 s for Serve's proxies, which end with it
    "RAY_worker_niceness": "0",  # Ray nices workers to 15, which starves them on a shared machine
}


class LocalRay(Frozen):
    """A running cluster: the keeper of its head node, where to connect, and what to remove with it."""

    keeper: ManagedProcess
    address: str
    dashboard_url: str
    temp_dir: str
    token_path: str
    raylets: dict[str, ManagedProcess] = Field(default_factory=dict)
    """The keepers of its other nodes, by the name of the node that each emulates."""

    def environment(self) -> dict[str, str]:
        """Variables that a process needs to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.token_path}

    def stop(self) -> None:
        """End every process of the cluster, also those that lost their parent, and remove its temporary folder."""
        _stop_all(self.raylets.values())
        self.keeper.stop()
        left = [process for process in psutil.process_iter() if _mentions(process, f"{self.temp_dir}/")]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.temp_dir, ignore_errors=True)


class NodeStart(Frozen):
    """How to start one more node."""

    name: str
    options: tuple[str, ...]
    """Of `ray start`: its resources and labels."""
    env: dict[str, str]
    """Variables for every process of the node."""
    log: Path
    """File for what it prints."""


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """The temporary folder of a cluster, removed if that does not come up within the `with` block."""
    temp_dir = make_temp_dir()
    try:
        yield temp_dir
    except BaseException:
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise


def make_temp_dir() -> str:
    """Make a temporary folder for a cluster: short, because the paths of Ray's sockets must stay below 108 bytes."""
    return tempfile.mkdtemp(prefix="hs-", dir="/tmp")  # mkdtemp makes it ours alone


def start(
    *,
    num_cpus: int,
    temp_dir: str,
    env: Mapping[str, str],
    token_path: Path,
    log: Path,
    options: Sequence[str] = (),
) -> LocalRay:
    """Start a head node with `num_cpus` cores and wait until it can be joined.

    Args:
        num_cpus: cores that Ray may hand out.
        temp_dir: from `make_temp_dir`; it goes when the cluster stops.
        env: variables for every Ray process, beside ours.
        token_path: file of the authentication token, made when missing.
        log: file for what the head node prints.
        options: more options of `ray start`.

    Raises:
        ServiceError: it ended or did not come up in time; the end of its log is in the message.

    """
    _make_token(token_path)
    dashboard, agent, client, metrics = free_ports(4)
    options = (
        *("--head", "--node-ip-address=127.0.0.1", "--port=0", f"--temp-dir={temp_dir}", f"--num-cpus={num_cpus}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
        *options,
    )
    starting = _Starting("Ray", options, {**env, "RAY_AUTH_TOKEN_PATH": str(token_path)}, log)
    try:
        address = starting.wait_for(r"--address='([^']+)'")[1]
    except BaseException:
        starting.keeper.stop()
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    url = f"http://127.0.0.1:{dashboard}"
    return LocalRay(
        keeper=starting.keeper.model_copy(update={"url": url}),
        address=address,
        dashboard_url=url,
        temp_dir=temp_dir,
        token_path=str(token_path),
    )


def add_nodes(cluster: LocalRay, nodes: Sequence[NodeStart]) -> LocalRay:
    """Start more nodes on this machine, some at a time, and wait until all have joined.

    Raises:
        ServiceError: one of them ended or did not come up in time; then none of them is left.
    """
    running: dict[str, ManagedProcess] = {}
    try:
        for first in range(0, len(nodes), NUM_STARTING):
            batch = []
            for number, node in enumerate(nodes[first : first + NUM_STARTING], first):
                batch.append(_start_node(cluster, number, node))
                running[node.name] = batch[-1].keeper
            for starting in batch:
                starting.wait_for("Ray runtime started")
    except BaseException:
        _stop_all(running.values())
        raise
    return cluster.model_copy(update={"raylets": {**cluster.raylets, **running}})


class _Starting:
    """A `ray start` that stays with what it started, and the log in which it says how far it is."""

    def __init__(self, what: str, options: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *_OPTIONS, *options]
        self.keeper = spawn(what, command, env={**env, **_OURS}, log=log)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it prints `pattern`."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            text = self._log.read_bytes()[self._offset :].decode(errors="replace")
            if match := re.search(pattern, text):
                return match
            if not self.keeper.alive():
                break
            time.sleep(0.05)
        tail = self._log.read_text(errors="replace").splitlines()[-15:]
        raise ServiceError(
            f"{self.keeper.what} did not come up on this machine",
            where=str(self._log),
            got="\n    ".join(tail),
            causes=("too little memory or disk", "the machine is very busy"),
            next_step=f"read {self._log}",
        )


def _start_node(cluster: LocalRay, number: int, node: NodeStart) -> _Starting:
    options = (
        *(f"--address={cluster.address}", f"--node-ip-address={_FIRST_NODE + number}", f"--node-name={node.name}"),
        # Ray numbers sockets and logs of one folder without a lock, so nodes that start at once must not share it
        *(f"--temp-dir={cluster.temp_dir}/{number}", "--include-log-monitor=false"),
        "--dashboard-agent-listen-port=0",
        *node.options,
    )
    return _Starting(f"the Ray node {node.name}", options, {**node.env, **cluster.environment()}, node.log)


def _stop_all(processes: Iterable[ManagedProcess]) -> None:
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(ManagedProcess.stop, processes))


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
