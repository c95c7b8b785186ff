"""Where runs are kept: a local MLflow store inside ours, its server, and whether a remote one answers.

The local store is one sqlite file and a folder of artifacts. Artifacts are addressed by path, so the same store can be
read through the server while it is up and straight from the file after it has gone.
"""

import http.client
import sys
import threading
import time
import urllib.request
import warnings
from pathlib import Path

from heliostat.cluster.ports import holder_of
from heliostat.cluster.process import ManagedProcess, spawn
from heliostat.errors import ServiceError
from heliostat.serve.mlflow_client import SETTINGS, connect

START_TIMEOUT_S = 120.0
"""6.5 s on two idle cores; a loaded machine takes ten times that."""

ANSWER_TIMEOUT_S = 5.0

_SQLITE = "sqlite:///"


def local_uri(store: Path) -> str:
    """The address of the local tracking store inside the Heliostat store `store`."""
    return f"{_SQLITE}{_folder(store) / 'mlflow.db'}"


def local_file(uri: str) -> Path | None:
    """The file of a store that is a local one; None when it is a server or another database."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_root(uri: str) -> str | None:
    """The artifact folder of a local store; None when the store decides by itself."""
    file = local_file(uri)
    return None if file is None else str(file.parent / "artifacts")


def initialise(store: Path) -> str:
    """Create or upgrade the tables of the local store, and return its address.

    Once, before any worker uses it: processes that find an empty file all try to create its tables, and most fail. A
    server does this by itself when it starts.
    """
    _folder(store).mkdir(parents=True, exist_ok=True)
    uri = local_uri(store)
    connect(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

        Tracking(uri, artifact_root(uri))
        Registry(uri)
    return uri


def start_server(store: Path, host: str, port: int) -> ManagedProcess:
    """Start the MLflow server of the local store, in a session of its own; `wait_for_server` waits until it answers.

    One worker, no job runner, no telemetry; it also creates the tables. What it prints goes to `mlflow/server.log`.

    Raises:
        ServiceError: the port is taken.
    """
    if holder := holder_of(port, host):
        raise ServiceError(
            f"port {port} is taken, MLflow cannot listen there",
            where=f"{host}:{port}",
            got=f"held by {holder}",
            causes=("an earlier run was left up with --keep",),
            next_step="heliostat down, or choose another port",
        )
    folder = _folder(store)
    url = f"http://{host}:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", local_uri(store), "--no-serve-artifacts"),
        *("--default-artifact-root", str(folder / "artifacts")),
    ]
    env = {**SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return spawn("MLflow", command, env=env, log=_log(store)).model_copy(update={"url": url})


def wait_for_server(server: ManagedProcess, store: Path) -> None:
    """Wait until the server of the local store answers.

    Raises:
        ServiceError: it ended, or is not up in time; the end of its log is in the message.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.alive():
        if _ask_server(server.url) is None:
            return
        time.sleep(0.1)
    log = _log(store)
    raise ServiceError(
        "the local MLflow server did not come up",
        where=str(log),
        got="\n    ".join(log.read_text(errors="replace").splitlines()[-15:]),
        causes=("its database is damaged or from a newer MLflow", "the machine is very busy"),
        next_step=f"read {log}",
    )


def check_tracking(uri: str) -> None:
    """Make sure that the tracking store at `uri` answers, within about five seconds.

    Raises:
        ServiceError: it does not, or what answers is not MLflow.
    """
    problem = _ask_server(uri) if uri.startswith(("http://", "https://")) else _ask_client(uri)
    if problem is not None:
        raise ServiceError(
            "the MLflow tracking store does not answer",
            where=uri,
            got=problem,
            causes=("the address has a mistake", "the server is not running, or a firewall is in between"),
            next_step="set tracking.uri to an MLflow server, or to null for a local store",
        )


def _folder(store: Path) -> Path:
    return store.resolve() / "mlflow"


def _log(store: Path) -> Path:
    return _folder(store) / "server.log"


def _ask_server(url: str) -> str | None:
    """What is wrong with the server at `url`; None when it is an MLflow server that is well."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
            body = answer.read(64)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error)
    return None if body.strip() == b"OK" else f"/health answered {body!r}, which is not what MLflow says"


def _ask_client(uri: str) -> str | None:
    """What is wrong with the store at `uri`, asked in a thread because a database driver may wait for minutes."""
    answer = ["no answer"]

    def ask() -> None:
        try:
            connect(uri).search_experiments(max_results=1)
            answer[0] = ""
        except Exception as error:  # noqa: BLE001  # whatever the driver raises is the answer
            answer[0] = str(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    return answer[0] or None
