"""TCP ports: find free ones, and say who holds one that is not."""

import socket

import psutil


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Find `count` different ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind((host, 0))
        return [int(listener.getsockname()[1]) for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def holder_of(port: int, host: str) -> str | None:
    """Name the process listening on `port`; None when the port can be bound.

    Only the owner of a process may see its sockets, so the answer can be "another process".
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return _listener(port) or "another process"
    return None


def _listener(port: int) -> str | None:
    for process in psutil.process_iter(["pid", "name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return f"{process.info['name']} (pid {process.info['pid']})"
    return None
