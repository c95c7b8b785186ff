"""The language model, made tiny: from the plays' text to a stream of words, on an emulated cluster of four nodes."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.cluster.ports import free_ports, holder_of
from heliostat.serve.endpoint import Endpoint
from tests.e2e.conftest import ROOT, Project

pytestmark = pytest.mark.e2e

CONFIG = "configs/shakespeare.yaml"
TINY = {
    "data.options": "{plays: 1, vocabulary: 300, context: 32}",
    "train.params": "{width: 32, num_heads: 4, depth: 4, context: 32}",
    "train.global_batch": "64",
    "train.lr": "0.01",
    "smoke.rows": "4",
}
"""One play to learn from, and a model of 70 thousand parameters; all else is the experiment's."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("shakespeare")
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(directory, free_ports(1)[0], CONFIG)
    project.edit(CONFIG, "port: 8000", f"port: {project.port}")
    try:
        yield project
    finally:
        project.call("down")


@pytest.fixture(scope="module")
def summary(project: Project) -> dict[str, Any]:
    changes = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    return project.run("--keep", *changes)


def test_every_step_runs_on_the_emulated_cluster(summary: dict[str, Any]) -> None:
    steps = summary["steps"]
    assert list(steps) == ["data", "plan", "train", "register", "serve", "smoke"], "there is no search"
    plan, placement = steps["plan"]["outputs"]["plan"], steps["train"]["outputs"]["report"]["placement"]
    assert plan["cluster_origin"] == "emulated"
    assert {rank["device_kind"].partition("@")[0] for rank in placement["ranks"]} == {"swift", "steady"}
    assert len({rank["node_id"] for rank in placement["ranks"]}) == 4


def test_the_model_is_judged_beside_counted_tokens(summary: dict[str, Any]) -> None:
    table = summary["steps"]["smoke"]["outputs"]["test_metrics"]
    assert list(table) == ["served model (train)", "bigrams", "unigrams"]
    assert {tuple(sorted(metrics)) for metrics in table.values()} == {("bits_per_byte", "loss", "perplexity")}
    assert table["bigrams"]["loss"] < table["unigrams"]["loss"]
    assert summary["steps"]["smoke"]["metrics"]["prompts_compared"] == 4


def test_a_text_comes_whole_or_as_a_stream_and_bad_requests_are_told(summary: dict[str, Any], project: Project) -> None:
    endpoint = Endpoint.model_validate(summary["session"]["endpoint"])
    assert (endpoint.path, endpoint.url) == ("/generate", f"http://127.0.0.1:{project.port}")
    drawn = {"max_tokens": 60, "temperature": 0.9, "top_k": 50, "seed": 3}
    pieces = list(endpoint.stream("HAMLET:\n", **drawn))
    assert len(pieces) > 1
    assert endpoint.generate("HAMLET:\n", **drawn) == "".join(pieces)

    body = json.dumps({"prompt": "to be " * 60, "temperature": 1}).encode()
    request = urllib.request.Request(f"{endpoint.url}/generate", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, timeout=10):
        pass
    with caught.value as refusal:
        assert refusal.code == 400
        [mistake] = json.loads(refusal.read())["detail"]
    assert (mistake["where"], mistake["what"]) == ("prompt", "the prompt is too long")


def test_nothing_is_left(summary: dict[str, Any], project: Project) -> None:
    assert "EMULATED: 4 nodes" in project.call("status")
    store = Path(summary["session"]["ray"]["temp_dir"])
    project.call("down")
    assert project.processes() == []
    assert holder_of(project.port, "127.0.0.1") is None
    assert not store.exists()
