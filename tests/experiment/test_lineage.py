"""The walk back from a registered model, in a real store."""

from pathlib import Path

import pytest
from rich.console import Console

from heliostat.errors import UserError
from heliostat.experiment.lineage import Lineage, lineage, render
from heliostat.experiment.tracking import Tracker
from heliostat.experiment.tracking_store import initialise, local_uri
from heliostat.serve.registry import METRIC_TAG, Provenance

PROVENANCE = Provenance(
    data_version="flights@7", plan="blocks 0..1 on cpu [a, b]", plan_digest="p1", code="c1", environment="e1"
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = initialise(tmp_path_factory.mktemp("store"))
    tracker = Tracker(uri)
    parent = tracker.open_run("delays", "delays", config={"seed": 7}, tags={})
    child = tracker.open_step(parent, "train", tags={})
    tracker.log_params(child, {"train": {"lr": 0.002, "sizes": "[x]"}})
    tracker.log_series(child, {"loss": [(0, 0.7), (1, 0.25)]})
    tracker.close(child, "FINISHED")
    tags = {**PROVENANCE.tags(), f"{METRIC_TAG}auc": "0.7312345678"}
    tracker.client.create_registered_model("flight-delay")
    tracker.client.create_model_version("flight-delay", source="/models/1", run_id=child, tags=tags)
    tracker.client.set_registered_model_alias("flight-delay", "champion", "1")
    return uri


def test_the_walk_from_model_to_experiment(uri: str) -> None:
    found = lineage(uri, "flight-delay@champion")
    assert found.model.id == "flight-delay@1"
    assert found.model.provenance == PROVENANCE
    assert found.model.metrics == {"auc": 0.7312345678}
    train, experiment = found.runs
    assert (train.name, train.status, train.params) == (
        "train",
        "FINISHED",
        {"train.lr": "0.002", "train.sizes": "[x]"},
    )
    assert train.metrics == {"loss": 0.25}
    assert (experiment.name, experiment.status, experiment.params) == ("delays", "RUNNING", {"seed": "7"})


def test_it_survives_json(uri: str) -> None:
    found = lineage(uri, "flight-delay")
    assert Lineage.model_validate_json(found.model_dump_json()) == found


def test_what_a_person_sees(uri: str) -> None:
    console = Console(width=120, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    with console.file:
        console.print(render(lineage(uri, "flight-delay")))
    text = console.export_text()
    for line in (
        "flight-delay@1 (champion)",
        "auc = 0.731235",
        "data version  flights@7",
        "plan          blocks 0..1 on cpu [a, b]  p1",
        "code          c1",
        "environment   e1",
        "trained by run train",
        "train.lr = 0.002",
        "train.sizes = [x]",
        "loss = 0.25",
        "part of run delays",
    ):
        assert line in text


def test_nothing_is_made_where_nothing_is(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model has been registered here"):
        lineage(local_uri(tmp_path), "flight-delay")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="did you mean 'flight-delay'"):
        lineage(uri, "flight-delai")
