"""The README's commands as they are written, on the flights; then what is skipped, what runs again, and why."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from heliostat.cluster.ports import holder_of
from heliostat.train import telemetry
from tests.e2e.conftest import ROOT, Project, call_shell, copy_project

pytestmark = pytest.mark.e2e

T = TypeVar("T")
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
SHORT = ("--set", "train.epochs=2", "--set", "tune.trials=2", "--set", "tune.epochs=1")
"""A shorter training and search, so that the suite stays short; the commands are the README's otherwise."""
STEPS = ["data", "plan", "train", "tune", "register", "serve", "smoke"]
INPUTS = ("carrier", "origin", "dest", "weekday", "sched_dep_time", "sched_arr_time", "distance", "origin_hour_flights")


@dataclass(frozen=True)
class Quickstart:
    """The quickstart in a directory of its own, after the README's two runs, with everything up."""

    project: Project
    output: str

    def shell(self, block: str) -> str:
        """Run a block of the README, in our directory and at our port."""
        commands = block.replace(". .venv/bin/activate\n", "").replace(
            "localhost:8000", f"127.0.0.1:{self.project.port}"
        )
        commands = re.sub(r"(heliostat run \S+)", rf"\1 {' '.join(SHORT)}", commands)
        return call_shell(commands, self.project.directory)

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run again, with everything kept up: the summary."""
        return self.project.run("--keep", *SHORT, *arguments)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    project = copy_project(tmp_path_factory.mktemp("quickstart"))
    try:
        output = Quickstart(project, "").shell(BLOCKS[1])
        yield Quickstart(project, output)
    finally:
        project.call("down")


def ran(summary: dict[str, Any]) -> list[str]:
    return [name for name, step in summary["steps"].items() if not step["skipped"]]


def metrics_on_test(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    return dict(summary["steps"]["smoke"]["outputs"]["test_metrics"])


def post(url: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert BLOCKS[0] == "make demo\nmake test\n"
    assert re.search(r"^demo:.*\n\t\S*heliostat run configs/quickstart\.yaml$", makefile, flags=re.MULTILINE)
    assert re.search(r"^test:.*lint types\n\t\S*python -m pytest$", makefile, flags=re.MULTILINE)


def test_every_file_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_shows_this_machine_and_a_file(project: Project) -> None:
    output = call_shell(BLOCKS[3], project.directory)
    assert "this machine" in output
    assert "16 x A100-40GB-SXM" in output


def test_the_readme_plans_a_model_for_a_cluster_that_is_not_here(project: Project) -> None:
    output = call_shell(BLOCKS[4], project.directory)
    assert "on 16 x A100-40GB-SXM + 16 x V100-32GB-SXM, 4 nodes" in output
    assert "The fastest plan found takes" in output
    assert "<svg" in (project.directory / "plan.html").read_text()


def test_the_first_run_does_everything_and_a_learning_rate_only_what_depends_on_it(quickstart: Quickstart) -> None:
    first, second = (re.findall(r"^([>=]) (\w+)", part, flags=re.MULTILINE) for part in halves(quickstart.output))
    assert first == [(">", step) for step in STEPS]
    assert second == [("=", "data"), ("=", "plan"), *((">", step) for step in STEPS[2:])]
    assert "train    runs: config: train.lr 0.002 -> 0.003 (--set train.lr)" in quickstart.output


def halves(output: str) -> list[str]:
    return output.split("+ heliostat run")[1:3]


def test_everything_is_skipped_and_the_served_model_beats_both_baselines(quickstart: Quickstart) -> None:
    started = time.monotonic()
    summary = quickstart.run()
    assert ran(summary) == []
    assert time.monotonic() - started < 30
    smoke = summary["steps"]["smoke"]["metrics"]
    assert smoke["rows_compared"] == 200
    assert smoke["largest_difference"] <= 1e-5
    train = summary["steps"]["train"]["metrics"]
    assert train["predicted_step_s"] > 0
    assert train["measured_step_s"] > 0
    auc = {name.partition(" (")[0]: values["auc"] for name, values in metrics_on_test(summary).items()}
    assert auc["served model"] > auc["logistic regression"] > auc["class prior"] == 0.5
    assert summary["session"]["endpoint"]["model"] == "flight-delay@1"


def test_the_plan_of_the_run_is_told_in_full(quickstart: Quickstart) -> None:
    output = quickstart.shell("heliostat plan configs/quickstart.yaml")
    assert "LateTask: " in output
    assert "The fastest plan found takes" in output
    assert "Memory at the peak" in output


def test_the_endpoint_names_the_field_that_is_wrong(quickstart: Quickstart) -> None:
    url = f"http://127.0.0.1:{quickstart.project.port}"
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
        schema = json.loads(answer.read())["components"]["schemas"]["Row"]
    row = {name: field["examples"][0] for name, field in schema["properties"].items()}
    assert set(INPUTS) <= set(row)
    status, one = post(f"{url}/predict", row)
    assert status == 200
    assert 0 < one["predictions"][0] < 1
    assert post(f"{url}/predict", [row, row])[1]["predictions"] == pytest.approx(one["predictions"] * 2, abs=1e-6)
    status, refusal = post(f"{url}/predict", {**row, "weekday": 8})
    assert status == 422
    assert "weekday" in refusal["detail"][0]["loc"]


def test_what_only_a_step_can_find_out_is_told_as_a_mistake_too(quickstart: Quickstart) -> None:
    run = ("run", quickstart.project.config, "--keep", *SHORT)
    message = quickstart.project.call(*run, "--set", "train.params.widht=64", exit_code=2)
    assert "did you mean 'width'" in message
    message += quickstart.project.call(*run, "--set", "data.label=lat", exit_code=2)
    assert "lat" in message
    assert "did you mean 'late'" in message
    assert "Traceback" not in message


def test_a_comment_runs_nothing_and_a_helper_of_the_features_runs_from_the_data_on(quickstart: Quickstart) -> None:
    project, features = quickstart.project, "examples/flights/features.py"
    before = (project.directory / features).read_text().partition("def wind_vector")[0]
    line = before.count("\n") + 1
    project.edit(features, "calm air has no direction.", "calm air comes from nowhere.")
    assert ran(quickstart.run()) == []
    project.edit(features, "np.where(speed == 0, 0.0, direction)", "np.where(speed <= 1, 0.0, direction)")
    summary = quickstart.run()
    assert ran(summary) == STEPS
    assert summary["steps"]["data"]["reasons"] == [f"code: `wind_vector()` in flights/features.py:{line} changed"]
    project.edit(features, "np.where(speed <= 1, 0.0, direction)", "np.where(speed == 0, 0.0, direction)")
    assert ran(quickstart.run()) == []


def test_use_lineage_and_down(quickstart: Quickstart) -> None:
    project = quickstart.project
    assert project.processes()
    output = quickstart.shell(BLOCKS[2])
    assert f"http://127.0.0.1:{project.port}/predict" in output
    assert '"predictions":[0.' in output.replace(" ", "")
    assert "flight-delay@" in output
    assert "stopped:" in output
    assert project.processes() == []
    assert holder_of(project.port, "127.0.0.1") is None
    assert project.call("status") == "nothing is up\n"
    assert project.call("down") == "nothing was up\n"


def test_ctrl_c_stops_everything_and_the_next_run_goes_on(quickstart: Quickstart) -> None:
    project, store = quickstart.project, quickstart.project.directory / ".heliostat"
    run = ("run", project.config, *SHORT, "--set", "train.lr=0.004", "--set", "train.epochs=20")
    before = set(store.glob("work/train/*"))
    process = project.start(*run)
    (work,) = wait_for(lambda: {path.parents[1] for path in store.glob("work/train/*/checkpoints/step-*")} - before)

    refused = project.call(*run, exit_code=2)
    assert "another run is using this store" in refused
    assert f"pid {process.pid}" in refused

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert project.processes() == []
    assert project.call("status") == "nothing is up\n"

    process = project.start(*run)
    wait_for(lambda: {record for record in attempts(work) if record.step > 0})
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert project.processes() == []
    assert "= data" in output
    assert "= plan" in output
    assert [record.step > 0 for record in attempts(work)] == [False, True]


def attempts(work: Path) -> list[telemetry.AttemptRecord]:
    records = telemetry.read(telemetry.file_of(work, 0))
    return [record for record in records if isinstance(record, telemetry.AttemptRecord)]


def wait_for(look: Callable[[], set[T]]) -> set[T]:
    """What `look` finds, as soon as it finds something."""
    for _ in range(1800):
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within a minute and a half")
