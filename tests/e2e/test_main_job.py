"""The whole product on a small project: what runs, what is skipped and why, what stays up and what does not."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from heliostat.cluster.ports import holder_of
from tests.e2e.conftest import Project, copy_project

pytestmark = pytest.mark.e2e

STEPS = ["data", "plan", "train", "tune", "register", "serve", "smoke"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, Any]]]:
    """The project after its first run, with everything left up."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    yield project, project.run("--keep")
    project.call("down")


def ran(summary: dict[str, Any]) -> list[str]:
    return [name for name, step in summary["steps"].items() if not step["skipped"]]


def post(url: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_first_run_does_everything(first: tuple[Project, dict[str, Any]]) -> None:
    _, summary = first
    assert list(summary["steps"]) == STEPS
    assert ran(summary) == STEPS
    assert all(step["reasons"] == ["first run"] for step in summary["steps"].values())
    smoke = summary["steps"]["smoke"]
    assert smoke["metrics"]["rows_compared"] == 20
    assert smoke["metrics"]["largest_difference"] <= 1e-5
    prior = smoke["outputs"]["test_metrics"]["class prior"]["auc"]
    assert prior == 0.5
    assert smoke["metrics"]["test_auc"] > 0.9
    train = summary["steps"]["train"]["metrics"]
    assert train["predicted_step_s"] > 0
    assert train["measured_step_s"] > 0


def test_the_endpoint_answers_and_names_what_is_wrong(first: tuple[Project, dict[str, Any]]) -> None:
    url = f"http://127.0.0.1:{first[0].port}/predict"
    row = {"radius": 14.0, "texture": None, "size": "medium"}
    status, answer = post(url, row)
    assert status == 200
    assert 0 < answer["predictions"][0] < 1
    assert post(url, [row, row])[1]["predictions"] == answer["predictions"] * 2
    status, answer = post(url, {**row, "radius": "wide"})
    assert status == 422
    assert "radius" in answer["detail"][0]["loc"]


def test_a_second_run_skips_everything_and_is_quick(first: tuple[Project, dict[str, Any]]) -> None:
    started = time.monotonic()
    assert ran(first[0].run("--keep")) == []
    assert time.monotonic() - started < 30


def test_a_learning_rate_runs_from_training_on(first: tuple[Project, dict[str, Any]]) -> None:
    summary = first[0].run("--keep", "--set", "train.lr=0.02")
    assert ran(summary) == STEPS[2:]
    assert summary["steps"]["train"]["reasons"] == ["config: train.lr 0.01 -> 0.02 (--set train.lr)"]
    assert summary["session"]["endpoint"]["model"] == "tumours@2"


def test_a_comment_runs_nothing_and_a_helper_runs_from_the_data_on(first: tuple[Project, dict[str, Any]]) -> None:
    project = first[0]
    project.edit("helpers.py", "# a comment that may change", "# a comment that has changed")
    project.edit("helpers.py", '"""Bring large values closer."""', '"""Bring large values much closer."""')
    assert ran(project.run("--keep")) == []
    project.edit("helpers.py", "np.log1p(values)", "np.log1p(2 * values)")
    summary = project.run("--keep")
    assert ran(summary) == STEPS
    assert summary["steps"]["data"]["reasons"] == ["code: `normalize()` in helpers.py:7 changed"]
    project.edit("helpers.py", "np.log1p(2 * values)", "np.log1p(values)")
    assert ran(project.run("--keep")) == []


def test_lineage_walks_from_the_model_to_everything(first: tuple[Project, dict[str, Any]]) -> None:
    found = json.loads(first[0].call("lineage", "tumours@champion", "--json"))
    assert found["model"]["name"] == "tumours"
    assert found["model"]["provenance"]["data_version"].startswith("tumours@")
    assert "data version" in first[0].call("lineage", "tumours")


def test_status_lists_what_is_up_and_down_ends_it(first: tuple[Project, dict[str, Any]]) -> None:
    project = first[0]
    listed = project.call("status")
    assert f"http://127.0.0.1:{project.port}/predict" in listed
    assert project.processes()
    assert "stopped:" in project.call("down")
    assert project.processes() == []
    assert holder_of(project.port, "127.0.0.1") is None
    assert project.call("status") == "nothing is up\n"
    assert project.call("down") == "nothing was up\n"
