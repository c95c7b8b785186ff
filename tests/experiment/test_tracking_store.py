"""The local store, its server, and the check of a store's address, on the real thing."""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from heliostat.cluster.ports import free_ports, holder_of
from heliostat.errors import ServiceError
from heliostat.experiment import tracking_store
from heliostat.experiment.tracking import Tracker
from heliostat.experiment.tracking_store import (
    artifact_root,
    check_tracking,
    initialise,
    local_uri,
    start_server,
    wait_for_server,
)


def _write_one_run(uri: str) -> str:
    return Tracker(uri).open_run("race", "worker", config={"a": 1}, tags={})


def test_an_initialised_store_takes_many_writers_at_once(tmp_path: Path) -> None:
    uri = initialise(tmp_path)
    Tracker(uri).open_run("race", "first", config={}, tags={})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len(set(pool.map(_write_one_run, [uri] * 4))) == 4


def test_initialising_twice_keeps_what_is_there(tmp_path: Path) -> None:
    run_id = Tracker(initialise(tmp_path)).open_run("twice", "run", config={}, tags={})
    assert Tracker(initialise(tmp_path)).client.get_run(run_id).info.run_name == "run"


def test_artifacts_of_a_local_store_lie_beside_it(tmp_path: Path) -> None:
    assert artifact_root(local_uri(tmp_path)) == str(tmp_path / "mlflow" / "artifacts")
    assert artifact_root("http://tracking:5000") is None


def test_server_serves_the_store_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = start_server(tmp_path, "127.0.0.1", port)
    wait_for_server(server, tmp_path)
    family = psutil.Process(server.pid).children(recursive=True)
    try:
        check_tracking(server.url)
        run_id = Tracker(server.url).open_run("served", "run", config={"a": 1}, tags={})
        with pytest.raises(ServiceError, match=f"port {port} is taken") as caught:
            start_server(tmp_path, "127.0.0.1", port)
        assert "pid" in str(caught.value)
    finally:
        server.stop()
    assert not server.alive()
    assert not any(process.is_running() for process in family)
    assert holder_of(port, "127.0.0.1") is None

    after = Tracker(local_uri(tmp_path)).client.get_run(run_id)
    assert after.data.params == {"a": "1"}
    assert (Path(after.info.artifact_uri) / "config.json").is_file()


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class _SomethingElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _SomethingElse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_that_nobody_answers() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ServiceError, match="does not answer") as caught:
        check_tracking(f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port}" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "tracking.uri" in str(caught.value)


def test_a_silent_address_is_given_up(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "ANSWER_TIMEOUT_S", 0.5)
    with pytest.raises(ServiceError, match="timed out"):
        check_tracking(silent)


def test_another_service_is_not_taken_for_mlflow(stranger: str) -> None:
    with pytest.raises(ServiceError, match="not what MLflow says"):
        check_tracking(stranger)


@pytest.mark.parametrize("uri", ["sqlite:////proc/nowhere/mlflow.db", "nonsense://host", "http://"])
def test_addresses_that_cannot_be(uri: str) -> None:
    with pytest.raises(ServiceError):
        check_tracking(uri)


def test_a_local_store_answers(tmp_path: Path) -> None:
    check_tracking(initialise(tmp_path))
