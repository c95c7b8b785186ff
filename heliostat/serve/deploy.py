"""A model behind HTTP on Ray Serve: deploy, look, undeploy.

A cluster of our own runs Serve behind HAProxy in throughput mode (`serve_environment`), which spares every request the
way through Serve's own proxy. A cluster that somebody else started is used as it is.
"""

import logging
import time

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from heliostat.cluster.ports import free_ports, holder_of
from heliostat.errors import ServiceError, ServingFailure
from heliostat.serve.endpoint import Endpoint
from heliostat.serve.registry import ModelVersion, fetched, resolve
from heliostat.serve.served import app_of, load

MAX_ONGOING_REQUESTS = 100
"""Requests that a replica holds at once; with Serve's default of 5 it waits for the proxy."""

START_TIMEOUT_S = 180.0
"""A replica is up in about 6 s on two idle cores; a loaded machine takes ten times that."""

POLL_S = 0.1


class Predictor:
    """One replica: the model of a registered version, and its HTTP application."""

    def __init__(self, tracking_uri: str, version: ModelVersion) -> None:
        torch.set_num_threads(1)  # replicas scale the load; the other cores may be training
        with fetched(tracking_uri, version) as package:
            self._model = load(package, dedicated=True)
        self._version = version

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Serve calls
        """Build the application that Serve runs."""
        return app_of(self._model, name=self._version.name, version=self._version.version)


def deploy(
    reference: str,
    *,
    tracking_uri: str,
    app: str,
    host: str,
    port: int,
    num_replicas: int = 1,
    cpus_per_replica: float = 0.1,
) -> Endpoint:
    """Serve the model `reference` (`name@alias`, `name/version`) at `host:port`, and wait until it answers.

    The alias is resolved once, so that all replicas and all their restarts serve the same version. An application of
    the same name is replaced; what fails to come up is removed, unless it replaces another one. `cpus_per_replica` is
    what Ray accounts for each replica: a fraction, so that a deployment leaves a small machine's cores to training.

    Raises:
        UserError: there is no such model.
        ServiceError: the port is taken, or Serve listens somewhere else on this cluster.
        ServingFailure: a replica cannot load the model, or is not up in time.
    """
    version = resolve(tracking_uri, reference)
    _start_serve(host, port)
    replaces = app in serve.status().applications
    deployment = serve.deployment(
        serve.ingress()(Predictor),
        name="predictor",
        num_replicas=num_replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_constructor_retry_count=1,  # a package that does not load once does not load at all
        graceful_shutdown_timeout_s=5,
        ray_actor_options={"num_cpus": cpus_per_replica},
    )
    target = serve.RunTarget(deployment.bind(tracking_uri, version), name=app, route_prefix="/")
    endpoint = Endpoint(
        app=app,
        url=f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}",  # noqa: S104  # compared, not bound
        model=version.id,
        data_version=version.provenance.data_version,
    )
    try:
        serve.run_many([target], wait_for_applications_running=False)
        _wait_for(endpoint)
        return endpoint.model_copy(update={"path": endpoint.health()["path"]})
    except BaseException:
        if not replaces:
            undeploy(endpoint)
        raise


def serve_environment(folder: str) -> dict[str, str]:
    """Variables for every Ray process of a cluster of our own, set before it starts: HAProxy in throughput mode.

    HAProxy gets ports of its own and keeps its files in `folder`, because a second cluster on the machine, or an
    HAProxy that outlived its cluster, would hold Serve's fixed ones. The path must be short: that of a socket in it,
    with Ray's long node id, must stay below 108 bytes.
    """
    metrics_port, stats_port = free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # 30 by default, for load balancers in front
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    }


def undeploy(endpoint: Endpoint) -> None:
    """Remove the application; with the last one, Serve itself, its proxies and its port."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    others = set(serve.status().applications) - {endpoint.app}
    if others:
        serve.delete(endpoint.app)
    else:
        serve.shutdown()


def _start_serve(host: str, port: int) -> None:
    """Have Serve listen at `host:port`."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        there = (client.http_config.host, client.http_config.port)
        if there != (host, port):
            raise ServiceError(
                "Ray Serve already listens at another address on this cluster",
                where=f"{host}:{port}",
                got=f"{there[0]}:{there[1]}",
                causes=("another experiment is served there",),
                next_step=f"set serve.host and serve.port to {there[0]} and {there[1]}, or take the other one down",
            )
        return
    if holder := holder_of(port, host):
        raise ServiceError(
            f"port {port} is taken, the model cannot be served there",
            where=f"{host}:{port}",
            got=f"held by {holder}",
            causes=("an earlier run was left up with --keep",),
            next_step="heliostat down, or set serve.port to another port",
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": host, "port": port})


def _wait_for(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = serve.status().applications[endpoint.app]
        if found.status == ApplicationStatus.DEPLOY_FAILED:
            raise ServingFailure(
                f"a replica of {endpoint.model} failed to start",
                where=f"Serve application {endpoint.app}",
                got=_reason(found),
                causes=("the package does not load on that node", "the node cannot read the store"),
                next_step="heliostat run registers the model anew; the Serve logs on the Ray dashboard say more",
            )
        if found.status == ApplicationStatus.RUNNING and endpoint.is_up():
            return
        time.sleep(POLL_S)
    raise ServingFailure(
        f"{endpoint.model} does not answer after {START_TIMEOUT_S:.0f} s",
        where=endpoint.url,
        got=f"{found.status}: {_reason(found)}",
        causes=("the cluster has no room for the replicas", "the machine is very busy"),
        next_step="ray status",
    )


def _reason(application: ApplicationStatusOverview) -> str:
    messages = [deployment.message for deployment in application.deployments.values()]
    return "\n    ".join("\n".join([*messages, application.message]).strip().splitlines())
