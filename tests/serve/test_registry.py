"""Registering, aliasing and finding models, in a local store and on a server that keeps the artifacts to itself."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from heliostat.cluster.ports import free_ports
from heliostat.cluster.process import spawn
from heliostat.errors import ServiceError, UserError
from heliostat.experiment.tracking import Tracker
from heliostat.experiment.tracking_store import START_TIMEOUT_S, check_tracking, initialise
from heliostat.serve.mlflow_client import SETTINGS, connect
from heliostat.serve.model import ServedModel
from heliostat.serve.registry import ModelVersion, Provenance, fetched, register, resolve
from heliostat.serve.text_model import ServedText
from tests.serve.conftest import MakePackage, Rows

PROVENANCE = Provenance(
    data_version="flights@7", plan="blocks 0..1 on cpu", plan_digest="p1", code="c1", environment="e1"
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    return initialise(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as a team runs it: artifacts go through it, clients see no path."""
    folder = tmp_path_factory.mktemp("remote")
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", url.rpartition(":")[2], "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    env = {**SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = spawn("MLflow", command, env=env, log=folder / "log")
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            check_tracking(url)
            break
        except ServiceError:
            time.sleep(0.1)
    yield url
    server.stop()


def put(uri: str, package: Path, *, name: str, alias: str = "champion", auc: float = 0.7) -> ModelVersion:
    run_id = Tracker(uri).open_run("experiment", "train", config={}, tags={})
    return register(uri, package, name=name, alias=alias, run_id=run_id, provenance=PROVENANCE, metrics={"auc": auc})


def test_a_version_says_where_it_came_from(local: str, make_package: MakePackage) -> None:
    version = put(local, make_package(), name="told", auc=0.73)
    assert version.id == "told@1"
    assert version.aliases == ("champion",)
    assert version.provenance == PROVENANCE
    assert version.metrics == {"auc": 0.73}

    client = connect(local)
    assert client.get_run(version.run_id).data.metrics == {"auc": 0.73}
    tags = client.get_model_version("told", "1").tags
    assert tags == {
        "heliostat.data_version": "flights@7",
        "heliostat.plan": "blocks 0..1 on cpu",
        "heliostat.plan_digest": "p1",
        "heliostat.code": "c1",
        "heliostat.environment": "e1",
        "heliostat.metric.auc": "0.73",
    }


def test_the_champion_moves_and_is_remembered(local: str, make_package: MakePackage) -> None:
    package = make_package()
    first, second = put(local, package, name="moves"), put(local, package, name="moves")
    assert (first.version, second.version) == (1, 2)
    assert resolve(local, "moves@champion").version == 2
    assert resolve(local, "moves@previous").version == 1
    challenger = put(local, package, name="moves", alias="challenger")
    assert challenger.aliases == ("challenger",)
    assert resolve(local, "moves@champion").version == 2
    assert resolve(local, "moves@previous").version == 1
    assert put(local, package, name="moves").aliases == ("champion",)
    assert resolve(local, "moves@previous").version == 2


def test_ways_to_name_a_version(local: str, make_package: MakePackage) -> None:
    version = put(local, make_package(), name="named")
    for reference in ("named", "named@champion", "named@1", "named/1", "models:/named@champion", "models:/named/1"):
        assert resolve(local, reference) == version


def test_names_that_lead_nowhere(local: str, make_package: MakePackage) -> None:
    put(local, make_package(), name="flight-delay")
    with pytest.raises(UserError, match=r"no model 'flight-dealy' \(did you mean 'flight-delay'\?\)") as caught:
        resolve(local, "flight-dealy@champion")
    assert local in str(caught.value)
    with pytest.raises(UserError, match=r"no alias 'champoin' \(did you mean 'champion'\?\)") as caught:
        resolve(local, "flight-delay@champoin")
    assert "aliases champion; versions 1" in str(caught.value)
    with pytest.raises(UserError, match="no version '9'"):
        resolve(local, "flight-delay/9")
    with pytest.raises(UserError, match="does not name a model"):
        resolve(local, "a/b/c")


def test_packages_are_used_in_place_or_fetched(local: str, remote: str, make_package: MakePackage, rows: Rows) -> None:
    package = make_package()
    expected = ServedModel.load(package).predict(rows)
    here, there = put(local, package, name="fetched"), put(remote, package, name="fetched")
    assert there.provenance == here.provenance
    with fetched(local, here) as path:
        assert path.is_relative_to(Path(here.source))
        assert ServedModel.load(path).predict(rows) == expected
    with fetched(remote, there) as path:
        assert there.source.startswith("mlflow-artifacts:")
        assert ServedModel.load(path).predict(rows) == expected
    assert not path.exists()
    assert put(remote, package, name="fetched").version == 2
    assert resolve(remote, "fetched@previous") == there.model_copy(update={"aliases": ("previous",)})


def test_mlflow_loads_it_by_itself(
    local: str, make_package: MakePackage, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package()
    put(local, package, name="pyfunc")
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", local)
    model = mlflow.pyfunc.load_model("models:/pyfunc@champion")
    frame = pd.DataFrame(rows).astype({"seats": "float64", "distance": "float64"})
    assert model.predict(frame) == ServedModel.load(package).predict(rows)
    inputs = {column.name: (column.type.name, column.required) for column in model.metadata.signature.inputs}
    assert inputs == {
        "carrier": ("string", True),
        "dep time": ("long", True),
        "distance": ("double", True),
        "seats": ("double", False),
        "copy": ("string", False),
    }
    with pytest.raises(mlflow.exceptions.MlflowException, match="distance"):
        model.predict(frame.drop(columns="distance"))


def test_mlflow_loads_a_model_that_continues_texts(
    local: str, make_text_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_text_package()
    put(local, package, name="verses")
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", local)
    model = mlflow.pyfunc.load_model("models:/verses@champion")
    asked = {"prompt": "abc", "max_tokens": 8, "temperature": 0.7, "top_k": 3, "seed": 2}
    frame = pd.DataFrame([asked, {**asked, "prompt": "h"}]).astype({"max_tokens": "float64", "top_k": "float64"})
    frame = frame.astype({"seed": "float64"})
    assert model.predict(frame) == ServedText.load(package).predict([asked, {**asked, "prompt": "h"}])
    assert [output.type.name for output in model.metadata.signature.outputs] == ["string"]
