"""A model on Ray Serve, over real HTTP."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heliostat.cluster.ports import free_ports, holder_of
from heliostat.errors import ServiceError, ServingFailure
from heliostat.experiment.tracking import Tracker
from heliostat.experiment.tracking_store import initialise
from heliostat.serve.deploy import deploy, serve_environment, undeploy
from heliostat.serve.endpoint import Endpoint
from heliostat.serve.model import ServedModel
from heliostat.serve.registry import ModelVersion, Provenance, fetched, register
from tests.serve.conftest import MakePackage, Rows

pytestmark = pytest.mark.ray

HOST = "127.0.0.1"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return initialise(tmp_path / "store")


@pytest.fixture
def version(uri: str, make_package: MakePackage) -> ModelVersion:
    provenance = Provenance(data_version="flights@7", plan="", plan_digest="", code="", environment="")
    run_id = Tracker(uri).open_run("experiment", "train", config={}, tags={})
    return register(
        uri,
        make_package(),
        name="flight-delay",
        alias="champion",
        run_id=run_id,
        provenance=provenance,
        metrics={},
    )


@pytest.fixture
def endpoint(ray_cluster: None, uri: str, version: ModelVersion) -> Iterator[Endpoint]:
    deployed = deploy("flight-delay@champion", tracking_uri=uri, app="flight-delay", host=HOST, port=free_ports(1)[0])
    yield deployed
    undeploy(deployed)
    assert not deployed.is_up()
    assert holder_of(int(deployed.url.rpartition(":")[2]), HOST) is None


def test_the_model_answers_over_http(endpoint: Endpoint, uri: str, version: ModelVersion, rows: Rows) -> None:
    assert endpoint.is_up()
    assert endpoint.model == "flight-delay@1"
    assert endpoint.data_version == "flights@7"
    with fetched(uri, version) as package:
        model = ServedModel.load(package)

    with httpx.Client(base_url=endpoint.url) as client:
        health = client.get("/healthz").json()
        assert health == {
            "status": "ok",
            "model": "flight-delay",
            "version": 1,
            "data": "flights@7",
            "path": "/predict",
        }

        many = client.post("/predict", json=rows * 70).json()
        assert many["model"] == "flight-delay@1"
        assert many["predictions"] == pytest.approx(model.predict(rows * 70), abs=1e-9)
        one = client.post("/predict", json=rows[0]).json()
        assert one["predictions"] == pytest.approx(model.predict(rows[:1]), abs=1e-9)

        refused = client.post("/predict", json={**rows[0], "distance": "far"})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "row", "distance"]
        schema = client.get("/openapi.json").json()
        assert sorted(schema["paths"]) == ["/healthz", "/predict"]
        assert schema["components"]["schemas"]["Row"]["required"] == ["carrier", "dep time", "distance"]

    elsewhere = free_ports(1)[0]
    with pytest.raises(ServiceError, match="already listens") as caught:
        deploy("flight-delay", tracking_uri=uri, app="second", host=HOST, port=elsewhere)
    assert endpoint.url.removeprefix("http://") in str(caught.value)
    assert endpoint.is_up()


def test_a_replica_that_cannot_load_says_why(ray_cluster: None, uri: str, version: ModelVersion) -> None:
    with fetched(uri, version) as package:
        (package / "weights.pt").unlink()
    (port,) = free_ports(1)
    with pytest.raises(ServingFailure, match="failed to start") as caught:
        deploy("flight-delay", tracking_uri=uri, app="flight-delay", host=HOST, port=port)
    assert "the weights do not fit the model" in str(caught.value)
    assert holder_of(port, HOST) is None


def test_a_port_in_use_is_named_before_anything_starts(uri: str, version: ModelVersion, ray_cluster: None) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} is taken") as caught:
            deploy("flight-delay", tracking_uri=uri, app="flight-delay", host=HOST, port=port)
    assert "pid" in str(caught.value)


def test_every_cluster_gets_its_own_haproxy() -> None:
    first, second = serve_environment("/tmp/first"), serve_environment("/tmp/second")
    assert first["RAY_SERVE_ENABLE_HA_PROXY"] == first["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    own = {name for name in first if first[name] != second[name]}
    assert {name.removeprefix("RAY_SERVE_HAPROXY_") for name in own} == {
        "METRICS_PORT",
        "STATS_PORT",
        "CONFIG_FILE_LOC",
        "SOCKET_PATH",
        "METRICS_SOCKET_PATH",
        "SERVER_STATE_BASE",
        "SERVER_STATE_FILE",
    }
