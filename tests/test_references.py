"""Names of the user's own code: found, importable by workers, and explained when they are wrong."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.errors import ReferenceNotFound
from heliostat.references import absolute, code_paths, did_you_mean, import_root, locate, resolve


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(reference: str) -> ReferenceNotFound:
    with pytest.raises(ReferenceNotFound) as caught:
        resolve(reference)
    assert caught.value.got == reference
    assert caught.value.next_step
    return caught.value


def test_a_file_and_a_module_resolve(tmp_path: Path) -> None:
    file = write(tmp_path / "lone_file.py", "WIDTH = 3")
    assert resolve(f"{file}:WIDTH") == 3
    assert resolve("collections.abc:Mapping").__name__ == "Mapping"  # type: ignore[attr-defined]


def test_a_file_may_import_the_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "helper_beside.py", "def double(x): return 2 * x")
    file = write(tmp_path / "main_beside.py", "from helper_beside import double\nSIX = double(3)")
    assert resolve(f"{file}:SIX") == 6


def test_a_file_in_a_package_is_imported_by_its_full_name(tmp_path: Path) -> None:
    write(tmp_path / "outer_pkg" / "__init__.py", "HERE = 1")
    write(tmp_path / "outer_pkg" / "inner" / "__init__.py")
    file = write(tmp_path / "outer_pkg" / "inner" / "task.py", "from outer_pkg import HERE")
    assert import_root(file) == (tmp_path, "outer_pkg.inner.task")
    assert import_root(tmp_path / "outer_pkg" / "__init__.py") == (tmp_path, "outer_pkg")
    assert resolve(f"{file}:HERE") == 1


def test_what_a_file_defines_unpickles_in_a_worker_that_has_the_code_paths(tmp_path: Path) -> None:
    file = write(tmp_path / "src" / "worker_pkg" / "__init__.py")
    file = write(tmp_path / "src" / "worker_pkg" / "task.py", "class Task:\n    width = 5")
    reference = f"{file}:Task"
    payload = pickle.dumps(resolve(reference))
    code = f"import pickle; print(pickle.loads({payload!r}).width)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(code_paths([reference]))}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "5\n"


def test_code_paths_are_the_roots_of_files_each_once(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.py"), write(tmp_path / "b.py")
    references = [f"{first}:A", "json:dumps", f"{second}:B"]
    assert code_paths(references) == [str(tmp_path)]
    assert locate("json:dumps") is None


def test_absolute_changes_files_only(tmp_path: Path) -> None:
    assert absolute("../code/task.py:Task", tmp_path / "configs") == f"{tmp_path}/code/task.py:Task"
    assert absolute("/code/task.py:Task", tmp_path) == "/code/task.py:Task"
    assert absolute("package.module:attr", tmp_path) == "package.module:attr"
    assert absolute("no colon", tmp_path) == "no colon"


@pytest.mark.parametrize("reference", ["", "task.py", "module", ":name", "module:"])
def test_a_reference_without_two_halves(reference: str) -> None:
    assert "does not name a Python object" in refused(reference).what


def test_a_missing_file_suggests_one_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "prepare.py")
    assert refused(f"{tmp_path}/prepair.py:f").what == (
        f"there is no file {tmp_path}/prepair.py (did you mean 'prepare.py'?)"
    )


def test_a_missing_attribute_suggests_one_of_the_module(tmp_path: Path) -> None:
    file = write(tmp_path / "attribute_missing.py", "FEATURES = 1")
    error = refused(f"{file}:FEATURE")
    assert error.what == "attribute_missing has no 'FEATURE' (did you mean 'FEATURES'?)"
    assert error.where == str(file)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jsonn", "there is no module 'jsonn' (did you mean 'json'?)"),
        ("email.mimee.text", "there is no module 'email.mimee' (did you mean 'email.mime'?)"),
        ("email.mime.txt", "there is no module 'email.mime.txt' (did you mean 'email.mime.text'?)"),
        ("json.decoder.deep", "there is no module 'json.decoder.deep'"),
    ],
)
def test_a_missing_module_suggests_a_sibling(name: str, words: str) -> None:
    assert refused(f"{name}:f").what == words


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("x = 1\ny = x / 0", 2, "ZeroDivisionError: division by zero"),
        ("import json\n\nCONFIG = json.loads('[')", 3, "JSONDecodeError"),
        ("import a_package_that_is_missing", 1, "No module named 'a_package_that_is_missing'"),
        ("def f(:\n    pass", 1, "SyntaxError"),
        ("import sys\nsys.exit(3)", 2, "SystemExit: 3"),
    ],
)
def test_an_import_that_raises_names_the_users_line(tmp_path: Path, code: str, line: int, words: str) -> None:
    file = write(tmp_path / "raises_on_import.py", code)
    error = refused(f"{file}:f")
    assert error.what.startswith("importing raises_on_import raises ")
    assert words in error.what
    assert error.where == f"{file}:{line}"
    assert error.__cause__ is not None


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "one" / "same_name.py", "X = 1")
    second = write(tmp_path / "two" / "same_name.py", "X = 2")
    assert resolve(f"{first}:X") == 1
    error = refused(f"{second}:X")
    assert error.what == "the module name 'same_name' belongs to another file"
    assert error.where == str(first)
    assert "belongs to another file" in refused(f"{write(tmp_path / 'sys.py')}:X").what


def test_did_you_mean_is_silent_when_nothing_is_close() -> None:
    assert did_you_mean("epohcs", ["epochs", "lr"]) == " (did you mean 'epochs'?)"
    assert did_you_mean("epochs", ["lr"]) == ""
