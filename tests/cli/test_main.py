"""The command line is a contract: commands, options and exit codes change only on purpose."""

from pathlib import Path
from typing import Any

import pytest
import typer

from heliostat.cli import app, invoke
from heliostat.errors import RunFailure

COMMANDS = {
    "run": {"config", "--set", "--keep", "--json"},
    "train": {"config", "--set", "--verify", "--trace", "--json"},
    "validate": {"config", "--set"},
    "schema": set(),
    "status": {"--store", "--json"},
    "down": {"--store"},
    "lineage": {"model", "--store", "--tracking-uri", "--json"},
    "export": {"checkpoint", "--out", "--json"},
    "cluster show": {"spec", "--address", "--store", "--cpus-per-device", "--json", "--yaml", "--png"},
    "cluster doctor": {"spec", "--address", "--store", "--json"},
    "cluster calibrate": {"--address", "--store", "--out", "--cpus-per-device", "--json"},
    "cluster emulate": {"spec", "--store", "--islands", "--slowdown"},
    "plan find": {"workload", "--cluster", "--objective", "--budget-s", "--set", "--json", "--html", "--svg"},
    "plan check": {"plan", "--cluster", "--json", "--html", "--svg"},
    "plan fit": {"data", "--out"},
}


def options(command: Any, name: str = "") -> dict[str, set[str]]:
    """The options of `command`, or of every command below it."""
    if hasattr(command, "commands"):
        below = [options(one, f"{name} {key}".strip()) for key, one in command.commands.items()]
        return {key: found for one in below for key, found in one.items()}
    return {name: {parameter.opts[0] for parameter in command.params if parameter.name != "help"}}


def test_commands_and_options_are_these() -> None:
    group: Any = typer.main.get_command(app)
    assert options(group) == COMMANDS
    assert {parameter.opts[0] for parameter in group.params} >= {"--debug"}


def test_a_mistake_is_told_without_a_traceback_unless_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.yaml")
    assert invoke(["validate", missing]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert invoke(["validate", missing, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_wrong_usage_is_a_mistake() -> None:
    assert invoke(["run"]) == 2
    assert invoke(["rnu"]) == 2
    assert invoke(["--help"]) == 0


@pytest.mark.parametrize(("error", "code"), [(RunFailure("a step failed"), 1), (KeyboardInterrupt(), 130)])
def test_failures_and_interrupts_have_codes_of_their_own(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("heliostat.experiment.config.load_experiment", fail)
    assert invoke(["validate", "any.yaml"]) == code


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["schema"]) == 0
    assert '"global_batch"' in capsys.readouterr().out


def test_nothing_is_up_in_an_empty_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert invoke(["status", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing is up\n"
    assert invoke(["down", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing was up\n"
