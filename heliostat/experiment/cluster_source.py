"""Which cluster a command means, and how to look at it, join it, start it or emulate it.

A file, if one is given; else the address; else what the store has up, which may be emulated; else this machine alone.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from heliostat.cluster import local, spec_file
from heliostat.cluster.connection import connect, disconnect, origin
from heliostat.cluster.local import LocalRay
from heliostat.cluster.spec import ClusterSpec, Origin
from heliostat.cluster.survey import Survey, survey_here
from heliostat.errors import ServiceError, UserError
from heliostat.experiment.records import Store
from heliostat.experiment.services import Session, local_cpus, ray_environment
from heliostat.values import Frozen

THIS_MACHINE = "this machine"
CALIBRATED = "cluster.yaml"
"""In a store: its cluster as it was calibrated last."""
ANSWER_TIMEOUT_S = 5.0
"""For a connection to the head node."""


class Look(Frozen):
    """A look at a cluster."""

    source: str
    """Where it is, in words."""
    survey: Survey


def look(
    spec: Path | None,
    *,
    address: str | None,
    store: Path,
    cpus_per_device: int = 1,
    known: ClusterSpec | None = None,
) -> Look:
    """Look at the cluster that a command means; without file and Ray at this machine alone.

    Args:
        spec: a cluster file; then nothing else is asked.
        address: of a Ray cluster.
        store: the store directory.
        cpus_per_device: cores of a device on a node without GPUs.
        known: what the nodes cannot tell, such as the fabric; by default what was calibrated for the store before.

    Raises:
        ConfigError: the file has mistakes.
        ServiceError: nothing answers where Ray should be.
    """
    if spec is not None:
        if address is not None:
            raise UserError("give a cluster file or an address", got=f"{spec} and {address}")
        return Look(source=str(spec), survey=Survey(cluster=spec_file.load(spec)))
    with joined(address, store) as source:
        return _look_around(source, store, cpus_per_device, known)


def measure(
    address: str | None,
    store: Path,
    out: Path | None,
    *,
    cpus_per_device: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Look, Path]:
    """Calibrate the cluster that a command means, or this machine, and write it down.

    Args:
        address: of a Ray cluster.
        store: the store directory.
        out: file for the result; by default one in the store.
        cpus_per_device: cores of a device on a node without GPUs.
        progress: as `calibrate_cluster` tells it.

    Returns:
        The cluster with what was measured, and the file that it is in.

    Raises:
        UserError: the file cannot be written, or the cluster has no device to measure.
        RunFailure: a measurement failed.
    """
    path = out or Store.open(store).root / CALIBRATED
    if not os.access(path.parent, os.W_OK):
        raise UserError(
            "the result cannot be written", where=str(path), next_step="give --out a file in another folder"
        )
    with _joined_or_started(address, store) as source:
        from heliostat.train.calibrate_cluster import calibrate_cluster

        found = _look_around(source, store, cpus_per_device, None)
        if not found.survey.cluster.num_devices:
            raise UserError("there is no device to measure", where=source, next_step="heliostat cluster doctor")
        cluster = calibrate_cluster(found.survey.cluster, cpus_per_device=cpus_per_device, progress=progress)
    spec_file.save(cluster, path)
    return Look(source=source, survey=found.survey.model_copy(update={"cluster": cluster})), path


@contextmanager
def joined(address: str | None, store: Path) -> Iterator[str | None]:
    """Be joined to the Ray cluster that a command means; gives it in words, None where there is none.

    Raises:
        ServiceError: nothing answers there.
    """
    session = Session.load(store)
    if address is not None:
        source, env = f"Ray at {address}", {}
    elif session.address is not None:
        address, source = session.address, f"Ray at {session.address}, up for {store}"
        env = session.ray.environment() if session.ray else {}
    else:
        yield None
        return
    with _connected(address, env, source):
        yield source


@contextmanager
def _joined_or_started(address: str | None, store: Path) -> Iterator[str]:
    """As `joined`, but where there is no Ray cluster one of our own on this machine, gone in the end.

    That one is written down while it is up, so that `heliostat down` ends it after a crash.
    """
    with joined(address, store) as source:
        if source is not None:
            yield source
            return
    opened = Store.open(store)
    with opened.lock("heliostat cluster calibrate"):
        before = Session.load(opened.root)
        with local.folder() as temp_dir:
            ray = local.start(
                num_cpus=local_cpus(),
                temp_dir=temp_dir,
                env=ray_environment(temp_dir),
                token_path=opened.root / "ray-token",
                log=opened.root / "logs" / "ray.log",
            )
        try:
            before.model_copy(update={"ray": ray, "address": ray.address}).save(opened.root)
            with _connected(ray.address, ray.environment(), THIS_MACHINE):
                yield THIS_MACHINE
        finally:
            ray.stop()
            before.save(opened.root)


def emulate(
    cluster: ClusterSpec, store: Path, *, by_island: bool = False, slowdowns: Mapping[str, float] | None = None
) -> LocalRay:
    """Start a Ray cluster that pretends to be `cluster`, and leave it up for the store.

    Args:
        cluster: what is pretended.
        store: the store directory, which must have no cluster up.
        by_island: start a Ray node for each NVLink island instead of each node.
        slowdowns: device type -> how many times as long it takes as the fastest, in place of the catalogue's.

    Raises:
        UserError: a cluster is up for the store, or the cluster cannot be emulated here.
        ServiceError: it did not come up; then nothing is left of it.
    """
    from heliostat.cluster import emulate as emulation

    opened = Store.open(store)
    with opened.lock("heliostat cluster emulate"):
        session = Session.load(opened.root)
        if session.ray is not None or session.address is not None:
            raise UserError(
                "a cluster is already up for this store",
                where=str(store),
                got=session.describe(),
                next_step=f"heliostat down --store {store}",
            )
        with local.folder() as temp_dir:
            ray = emulation.start(
                emulation.by_island(cluster) if by_island else cluster,
                temp_dir=temp_dir,
                env=ray_environment(temp_dir),
                token_path=opened.root / "ray-token",
                log_dir=opened.root / "logs",
                slowdowns=slowdowns,
            )
        try:
            session.model_copy(update={"ray": ray, "address": ray.address}).save(opened.root)
        except BaseException:
            ray.stop()
            raise
    return ray


def _look_around(source: str | None, store: Path, cpus_per_device: int, known: ClusterSpec | None) -> Look:
    """Look at the joined cluster, or at this machine alone where there is none."""
    measured = _calibrated(store, "live" if source is None else origin())
    known = known or measured
    if source is None:
        found = survey_here(cpus_per_device, known)
    else:
        from heliostat.cluster.discovery import survey

        found = survey(cpus_per_device, known)
    if measured is not None:
        found = found.model_copy(update={"cluster": found.cluster.with_speeds_of(measured)})
    return Look(source=source or THIS_MACHINE, survey=found)


def _calibrated(store: Path, origin: Origin) -> ClusterSpec | None:
    """The cluster that was calibrated for the store; None where it was not, or where one of them is an emulation."""
    path = store / CALIBRATED
    found = spec_file.load(path) if path.exists() else None
    return found if found is not None and found.origin == origin else None


@contextmanager
def _connected(address: str, env: Mapping[str, str], source: str) -> Iterator[None]:
    # Ray tells on stdout, from a thread, of nodes that die; there only the answer to the command must be
    with redirect_stdout(sys.stderr):
        try:
            connect(address, env=env, code_paths=())
        except ServiceError as error:
            error.where = source
            raise
        try:
            yield
        finally:
            disconnect()
