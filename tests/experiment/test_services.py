"""What is up for a store is written down, and what has ended is not believed."""

from pathlib import Path

from heliostat.cluster.local import LocalRay
from heliostat.cluster.process import ManagedProcess, spawn
from heliostat.experiment.services import Session, stop
from heliostat.serve.endpoint import Endpoint


def session(tmp_path: Path) -> Session:
    keeper = spawn("Ray", ["sleep", "60"], env={}, log=tmp_path / "ray.log").model_copy(update={"url": "http://r"})
    folder = tmp_path / "hs-1"
    folder.mkdir()
    ray = LocalRay(
        keeper=keeper, address="h:1", dashboard_url="http://r", temp_dir=str(folder), token_path=str(tmp_path / "t")
    )
    tracking = spawn("MLflow", ["sleep", "60"], env={}, log=tmp_path / "m.log").model_copy(update={"url": "http://m"})
    endpoint = Endpoint(app="a", url="http://e", model="m@1", data_version="d@0")
    return Session(experiment="x", ray=ray, address="h:1", tracking=tracking, endpoint=endpoint)


def save(value: Session, store: Path) -> None:
    (store / "session.json").write_text(value.model_dump_json())


def test_what_is_up_is_listed_and_stopped(tmp_path: Path) -> None:
    before = session(tmp_path)
    save(before, tmp_path)
    assert Session.load(tmp_path) == before
    assert all(url in before.describe() for url in ("http://r", "http://m", "http://e/predict"))
    assert stop(tmp_path) == before
    assert before.ray is not None
    assert before.tracking is not None
    assert not before.ray.keeper.alive()
    assert not before.tracking.alive()
    assert not Path(before.ray.temp_dir).exists()
    assert Session.load(tmp_path).empty
    assert stop(tmp_path).empty


def test_what_has_ended_since_is_not_listed(tmp_path: Path) -> None:
    before = session(tmp_path)
    save(before, tmp_path)
    assert before.ray is not None
    before.ray.keeper.stop()
    after = Session.load(tmp_path)
    assert (after.ray, after.endpoint) == (None, None)
    assert after.tracking == before.tracking
    stop(tmp_path)


def test_an_endpoint_that_went_with_somebody_elses_cluster_is_forgotten(tmp_path: Path) -> None:
    endpoint = Endpoint(app="a", url="http://127.0.0.1:1", model="m@1", data_version="d@0")
    save(Session(experiment="x", address="127.0.0.1:2", endpoint=endpoint), tmp_path)
    assert stop(tmp_path).endpoint == endpoint
    assert Session.load(tmp_path).empty


def test_a_damaged_note_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text('{"experiment": ')
    assert Session.load(tmp_path).empty


def test_a_process_that_never_was_is_not_alive() -> None:
    assert not ManagedProcess(what="x", pid=2**22 - 1, started=0.0, url="").alive()


def test_a_run_leaves_an_emulation_up_and_down_stops_it(tmp_path: Path) -> None:
    before = session(tmp_path)
    assert before.ray is not None
    raylet = spawn("node", ["sleep", "60"], env={}, log=tmp_path / "node.log")
    before = before.model_copy(update={"ray": before.ray.model_copy(update={"raylets": {"a": raylet}})})
    save(before, tmp_path)
    stop(tmp_path, keep_emulation=True)
    after = Session.load(tmp_path)
    assert (after.ray, after.address, after.tracking, after.endpoint) == (before.ray, "h:1", None, None)
    assert raylet.alive()
    stop(tmp_path)
    assert not raylet.alive()
