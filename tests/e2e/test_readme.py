"""The README's commands, run as they are written, on the flights."""

import re
import shutil
from pathlib import Path

import pytest

from heliostat.cluster.ports import free_ports
from tests.e2e.conftest import call_shell

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
SHORT = "--set train.epochs=1 --set tune.trials=2 --set tune.epochs=1"
"""A shorter training and search, so that the suite stays short; the commands are the README's otherwise."""


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = {line.removeprefix("make ") for line in BLOCKS[0].split("\n") if line}
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)
    assert "heliostat run configs/quickstart.yaml" in makefile


def test_every_file_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_work(tmp_path: Path) -> None:
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    port = str(free_ports(1)[0])
    config = tmp_path / "configs" / "quickstart.yaml"
    config.write_text(config.read_text().replace("port: 8000", f"port: {port}"))
    commands = "".join(BLOCKS[1:]).replace("localhost:8000", f"127.0.0.1:{port}")
    assert ". .venv/bin/activate\n" in commands
    commands = commands.replace(". .venv/bin/activate\n", "")
    runs = re.sub(r"(heliostat run \S+)", rf"\1 {SHORT}", commands)
    try:
        output = call_shell(runs, tmp_path)
    finally:
        call_shell("heliostat down", tmp_path)
    assert "served model" in output
    assert f"http://127.0.0.1:{port}/predict" in output
    assert '"model":"flight-delay"' in output.replace(" ", "")
    assert not (tmp_path / ".heliostat" / "session.json").exists()
    best, logistic, prior = aucs(output)
    assert best > logistic > prior


def aucs(output: str) -> tuple[float, float, float]:
    """AUC on the test split of the served model and the two baselines, as the first summary prints them."""
    rows = [
        re.search(rf"{name}[^\n]*?(0\.\d+)", output) for name in ("served model", "logistic regression", "class prior")
    ]
    values = [float(row.group(1)) for row in rows if row is not None]
    return values[0], values[1], values[2]
