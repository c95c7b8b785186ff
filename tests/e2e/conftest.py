"""The quickstart in a directory of its own, and the command line as a user calls it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from heliostat.cluster.ports import free_ports

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from heliostat.cli import main; main()"]


@dataclass(frozen=True)
class Project:
    """A copy of the quickstart, with its own store and port."""

    directory: Path
    port: int
    config: str = "configs/quickstart.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `heliostat ARGUMENTS` in the project."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "500", "NO_COLOR": "1"},
        )

    def call(self, *arguments: str, exit_code: int = 0) -> str:
        """Call `heliostat ARGUMENTS` and return what it printed, errors last."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=400)
        assert process.returncode == exit_code, f"exit code {process.returncode}\n{output}\n{errors}"
        return output + errors

    def run(self, *arguments: str) -> dict[str, Any]:
        """`heliostat run CONFIG --json ARGUMENTS`: the summary."""
        process = self.start("run", self.config, "--json", *arguments)
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, f"exit code {process.returncode}\n{output}\n{errors}"
        return dict(json.loads(output))

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace text in a file of the project."""
        path = self.directory / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def processes(self) -> list[str]:
        """Command lines of all processes that the services of this project's store consist of."""
        lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        return [line for line in lines if str(self.directory) in line]


def copy_project(directory: Path) -> Project:
    """Copy the quickstart into `directory` and give it a free port."""
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(directory, free_ports(1)[0])
    project.edit(project.config, "port: 8000", f"port: {project.port}")
    return project


def call_shell(commands: str, directory: Path) -> str:
    """Run `commands` in bash, stopping at the first that fails, with `heliostat` on the path; all that was printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxc", commands],
        cwd=directory,
        env={**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return copy_project(tmp_path)
