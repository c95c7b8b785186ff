"""Ray, MLflow and the endpoint around a run: started on first use, written down at once, stopped in order.

`session.json` in the store lists what is up, and is written before anything else is done with a service, so that after
any crash `heliostat status` finds it and `heliostat down` ends it.
"""

import os
from pathlib import Path

from pydantic import ValidationError

from heliostat.cluster import emulate, local, spec_file
from heliostat.cluster.connection import connect, disconnect, origin
from heliostat.cluster.local import LocalRay
from heliostat.cluster.ports import free_ports
from heliostat.cluster.process import ManagedProcess
from heliostat.experiment import tracking_store
from heliostat.experiment.sections import ExperimentConfig
from heliostat.files import write_whole
from heliostat.serve.endpoint import Endpoint
from heliostat.values import Frozen

HEALTH_CHECK_INTERVAL_S = "0.3"
"""How often Ray Train looks at its workers; its default of 2 s delays every start, commit and restart by as much."""


class Session(Frozen):
    """What is up for one store."""

    experiment: str = ""
    ray: LocalRay | None = None
    address: str | None = None
    """The Ray cluster in use, ours or somebody's."""
    tracking: ManagedProcess | None = None
    endpoint: Endpoint | None = None

    @classmethod
    def load(cls, store: Path) -> "Session":
        """Read what was written down, without what has ended since."""
        try:
            session = cls.model_validate_json((store / "session.json").read_text())
        except (FileNotFoundError, ValidationError):
            return cls()
        ray_gone = session.ray is not None and not session.ray.keeper.alive()
        if session.tracking and not session.tracking.alive():
            session = session.model_copy(update={"tracking": None})
        return session.model_copy(update={"ray": None, "address": None, "endpoint": None}) if ray_gone else session

    def save(self, store: Path) -> None:
        """Write it down, or take away the note where there is nothing to say."""
        if self == Session():
            (store / "session.json").unlink(missing_ok=True)
        else:
            write_whole(store / "session.json", self.model_dump_json(indent=2))

    @property
    def empty(self) -> bool:
        """Whether nothing is up."""
        return self.ray is None and self.tracking is None and self.endpoint is None

    def describe(self) -> str:
        """What is up, a line each."""
        lines = []
        if self.ray is not None:
            emulated = f"EMULATED: {len(self.ray.raylets)} nodes, " if self.ray.raylets else ""
            known = f"{emulated}pid {self.ray.keeper.pid}, token in {self.ray.token_path}"
            lines += [f"Ray       {self.ray.dashboard_url}  ({known})"]
        elif self.address is not None:
            lines += [f"Ray       {self.address}  (not ours)"]
        if self.tracking is not None:
            lines += [f"MLflow    {self.tracking.url}  (pid {self.tracking.pid})"]
        if self.endpoint is not None:
            url = self.endpoint.url
            lines += [f"endpoint  {url}{self.endpoint.path}  ({self.endpoint.model}, docs at {url}/docs)"]
        return "\n".join(lines) or "nothing is up"


class Services:
    """The services of one run. Every `ensure_` method may be called again and returns what is up."""

    def __init__(self, config: ExperimentConfig, store: Path, code_paths: list[str]) -> None:
        self._config = config
        self._store = store
        self._code_paths = code_paths
        self._connected = False
        self.session = Session.load(store)

    def ensure(self) -> str:
        """Have Ray up and joined, and MLflow's pages on their way; give the address of the tracking store.

        Steps run on this machine and write to a local store directly; its server is there to be looked at.
        """
        if self._config.tracking.uri is None and self.session.tracking is None:
            self._write(tracking=tracking_store.start_server(self._store, "127.0.0.1", free_ports(1)[0]))
        self.ensure_ray()
        return self._config.tracking.uri or tracking_store.local_uri(self._store)

    def wait_for_pages(self) -> None:
        """Wait until the MLflow server that `ensure` started, if it did, answers."""
        if self.session.tracking is not None:
            tracking_store.wait_for_server(self.session.tracking, self._store)

    def ensure_ray(self) -> str:
        """Join the cluster of the experiment, starting one of our own if that is what it asks for; give its address."""
        if self._connected:
            assert self.session.address is not None
            return self.session.address
        address, env = self._config.cluster.address, {}
        if address == "local":
            ours = self.session.ray or self._start_ray()
            address, env = ours.address, ours.environment()
        connect(address, env=env, code_paths=self._code_paths)
        self._connected = True
        self._write(address=address)
        return address

    @property
    def emulated(self) -> bool:
        """Whether the store has an emulated cluster up."""
        return self.session.ray is not None and bool(self.session.ray.raylets)

    @property
    def leaves_emulation(self) -> bool:
        """Whether the emulation that is up is none of the experiment's."""
        return self.emulated and self._config.cluster.emulate is None

    @property
    def origin(self) -> str:
        """Whether the joined cluster is `live` or `emulated`."""
        return origin()

    def note_endpoint(self, endpoint: Endpoint) -> None:
        """Write down a deployment."""
        self._write(endpoint=endpoint)

    def close(self) -> None:
        """Stop whatever this store has up, but for an emulation that was asked for on its own."""
        stop(self._store, connected=self._connected, keep_emulation=self.leaves_emulation)
        self._connected = False
        self.session = Session()

    def leave(self) -> None:
        """Go away and leave everything up."""
        disconnect()
        self._connected = False

    def _start_ray(self) -> LocalRay:
        token_path, logs = self._store / "ray-token", self._store / "logs"
        with local.folder() as temp_dir:
            env = ray_environment(temp_dir)
            if self._config.cluster.emulate is None:
                log = logs / "ray.log"
                started = local.start(num_cpus=local_cpus(), temp_dir=temp_dir, env=env, token_path=token_path, log=log)
            else:
                started = emulate.start(
                    spec_file.load(Path(self._config.cluster.emulate)),
                    temp_dir=temp_dir,
                    env=env,
                    token_path=token_path,
                    log_dir=logs,
                    cpus_per_device=self._config.cluster.cpus_per_device,
                )
        self._write(ray=started)
        return started

    def _write(self, **changes: object) -> None:
        self.session = self.session.model_copy(update={"experiment": self._config.name, **changes})
        self.session.save(self._store)


def stop(store: Path, *, connected: bool = False, keep_emulation: bool = False) -> Session:
    """Stop whatever `store` has up, and give what that was. Services that somebody else started are left alone."""
    session = Session.load(store)
    kept = session.ray if keep_emulation and session.ray is not None and session.ray.raylets else None
    if session.endpoint is not None and (session.ray is None or kept) and session.endpoint.is_up():
        _undeploy(session, connected=connected)
    if connected:
        disconnect()
    for service in (None if kept else session.ray, session.tracking):
        if service is not None:
            service.stop()
    if kept:
        Session(ray=kept, address=kept.address).save(store)
    else:
        (store / "session.json").unlink(missing_ok=True)
    return session


def _undeploy(session: Session, *, connected: bool) -> None:
    """Take the endpoint off a cluster that stays up; one that stops takes it along."""
    from heliostat.serve.deploy import undeploy

    assert session.address is not None
    assert session.endpoint is not None
    if not connected:
        connect(session.address, env=session.ray.environment() if session.ray else {}, code_paths=())
    undeploy(session.endpoint)
    disconnect()


def ray_environment(temp_dir: str) -> dict[str, str]:
    """Variables for every process of a Ray cluster of our own, whose temporary folder is `temp_dir`."""
    from heliostat.serve.deploy import serve_environment

    return {**serve_environment(temp_dir), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": HEALTH_CHECK_INTERVAL_S}


def local_cpus() -> int:
    """Cores that a local cluster offers: those this process may use."""
    return len(os.sched_getaffinity(0))
