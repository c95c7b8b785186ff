"""Free ports, and who holds a taken one."""

import os
import socket

from heliostat.cluster.ports import free_ports, holder_of


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(holder_of(port, "127.0.0.1") is None for port in ports)


def test_the_holder_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = holder_of(server.getsockname()[1], "127.0.0.1")
    assert holder is not None
    assert f"pid {os.getpid()}" in holder
