"""What a user can get wrong: exit code 2, a message that helps, no traceback, nothing left running."""

import socket

import pytest

from heliostat.cluster.ports import free_ports
from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

FOUR_MISTAKES = """\
name: flight-delay
sed: 3
data:
  prepare: ../examples/flights/prepare.py:prepare
  features: ../examples/flights/features.py:FEATURES
train:
  task: ../examples/flights/task.py:LateTask
  epochs: three
  global_batch: -4
  lr: 0.01
tune:
  trials: 2
  epochs: 2
  space: {train.lr: {loguniform: [0.001, 0.1]}}
  metric: auc
  mode: max
register: {model: flight-delay}
"""


def refused(project: Project, *arguments: str) -> str:
    message = project.call("run", project.config, *arguments, exit_code=2)
    assert "Traceback" not in message
    assert project.processes() == []
    return message


def test_four_mistakes_are_reported_together(project: Project) -> None:
    (project.directory / "configs" / "wrong.yaml").write_text(FOUR_MISTAKES)
    for command in ("validate", "run"):
        message = project.call(command, "configs/wrong.yaml", exit_code=2)
        assert "4 mistakes" in message
        assert "wrong.yaml:2:1: sed" in message
        assert "did you mean 'seed'" in message
        assert "wrong.yaml:3:1: data" in message
        assert "label" in message
        assert "wrong.yaml:8:" in message
        assert "wrong.yaml:9:" in message


def test_unknown_import_paths(project: Project) -> None:
    message = refused(project, "--set", "train.task=./examples/flights/task.py:LateTsk")
    assert "LateTsk" in message
    assert "did you mean 'LateTask'" in message
    message = refused(project, "--set", "data.features=no_such_package.features:FEATURES")
    assert "no_such_package" in message


def test_a_taken_port_is_named_with_its_holder(project: Project) -> None:
    with socket.create_server(("127.0.0.1", project.port)):
        message = refused(project)
    assert f"port {project.port} is taken" in message
    assert "pid" in message


def test_a_store_that_cannot_be_written(project: Project) -> None:
    (project.directory / "file").write_text("not a directory")
    message = refused(project, "--set", "store=file/store")
    assert "the store cannot be written" in message
    assert "file/store" in message


def test_an_mlflow_url_that_does_not_answer(project: Project) -> None:
    message = refused(project, "--set", f"tracking.uri=http://127.0.0.1:{free_ports(1)[0]}")
    assert "does not answer" in message
