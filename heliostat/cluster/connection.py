"""Joining a Ray cluster, and leaving it. Ray is imported only then."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Literal

from heliostat.cluster.emulated_node import EMULATED_LABEL
from heliostat.errors import ServiceError

ANSWER_TIMEOUT_S = 5.0
"""For a connection to be accepted, before Ray tries to join."""


def connect(address: str, *, env: Mapping[str, str], code_paths: Sequence[str]) -> None:
    """Join the Ray cluster at `address`; `code_paths` go on the Python path of its workers.

    Raises:
        ServiceError: nothing answers there, or it refuses us.

    """
    _check_answer(address)
    os.environ.update(env)
    import ray
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")  # Ray read its authentication variables when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(code_paths)}} if code_paths else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"cannot join the Ray cluster {address!r}",
            where="cluster.address",
            got=str(error).splitlines()[0],
            causes=("no cluster runs there: start one with `ray start --head`", "its Ray version or token differs"),
            next_step="ray status",
        ) from error


def _check_answer(address: str) -> None:
    """Refuse an address where nobody listens: Ray 2.60 tries for 20 minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=ANSWER_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"cannot join the Ray cluster {address!r}",
            got=f"{type(error).__name__}: {error}",
            causes=("no cluster runs there", "a firewall is between here and there"),
            next_step="correct the address: `ray status` on the head node tells it",
        ) from error


def origin() -> Literal["live", "emulated"]:
    """Whether the joined cluster is real: an emulated one has a node that says so."""
    import ray

    return "emulated" if any(EMULATED_LABEL in node["Labels"] for node in ray.nodes()) else "live"


def disconnect() -> None:
    """Leave the cluster; what runs in it goes on."""
    import ray

    ray.shutdown()
