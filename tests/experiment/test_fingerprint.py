"""Which edits change a fingerprint, and what the differences are called."""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import heliostat
from heliostat.errors import ReferenceNotFound, UserError
from heliostat.experiment.fingerprint import CodeFingerprint, differences, fingerprint
from heliostat.experiment.syntax import parse

Write = Callable[[Mapping[str, str]], Path]


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


class Project:
    """The user's files, and what an edit does to the fingerprint of `steps.py:entry`."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        write_files(folder, files)

    def fingerprint(self, name: str = "entry") -> CodeFingerprint:
        return fingerprint([f"{self.folder / 'steps.py'}:{name}"])

    def names(self, name: str = "entry") -> set[str]:
        return set(self.fingerprint(name).symbols)

    def edit(self, file: str, old: str, new: str) -> list[str]:
        before = self.fingerprint()
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))
        after = self.fingerprint()
        texts = differences(before, after)
        assert bool(texts) == (before.digest != after.digest)
        return texts


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Mapping[str, str]], Project]:
    return lambda files: Project(tmp_path, files)


STEPS = {
    "steps.py": '''
        """The steps."""
        import features
        from features import scale as rescale, Window

        LIMIT = 3
        UNUSED = 1

        def entry(rows):
            """Doc."""
            window = Window()
            return [features.normalize(row) for row in rows[:LIMIT]] + [rescale(window)]

        def other(rows):
            return features.unrelated(rows)
    ''',
    "features.py": '''
        from functools import partial

        OFFSET = 1
        half = partial(max, 2)
        twice = lambda x: x * 2

        def normalize(row):
            return shift(row) + OFFSET

        def shift(row):
            # a comment
            return half(row)

        def scale(row):
            return twice(row)

        class Window:
            """Rows."""

            size: int = 3

            def width(self):
                return self.size + deep()

        def deep():
            return 1

        def unrelated(rows):
            return rows
    ''',
}


def test_reaches_what_the_entry_uses_and_nothing_else(project: Callable[..., Project]) -> None:
    names = project(STEPS).names()
    assert names == {
        "steps:entry",
        "steps:LIMIT",
        *(f"features:{name}" for name in ("normalize", "shift", "scale", "OFFSET", "half", "twice", "Window", "deep")),
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("features.py", "# a comment", "# another one, longer"),
        ("features.py", '"""Rows."""', '"""Rows, and more of them."""'),
        ("steps.py", '    """Doc."""\n', ""),
        ("steps.py", "def entry(rows):", "\n\n\ndef entry(\n    rows,\n):"),
        ("features.py", "return half(row)", "return (half( row ))"),
        ("features.py", "    return rows", "    return rows + 1"),
        ("steps.py", "UNUSED = 1", "UNUSED = 2"),
        ("steps.py", "import features\nfrom", "import json\nimport features\nfrom"),
    ],
)
def test_what_does_not_matter(project: Callable[..., Project], file: str, old: str, new: str) -> None:
    assert project(STEPS).edit(file, old, new) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        ("features.py", "return half(row)", "return half(row) + 1", "`shift()` in features.py:11 changed"),
        ("features.py", "OFFSET = 1", "OFFSET = 2", "`OFFSET` in features.py:4 changed"),
        ("features.py", "partial(max, 2)", "partial(max, 3)", "`half` in features.py:5 changed"),
        ("features.py", "x * 2", "x * 3", "`twice` in features.py:6 changed"),
        ("features.py", "self.size +", "self.size -", "`Window` in features.py:18 changed"),
        ("features.py", "size: int = 3", "size: float = 3", "`Window` in features.py:18 changed"),
        ("features.py", "return 1\n", "return 2\n", "`deep()` in features.py:26 changed"),
        ("steps.py", "LIMIT = 3", "LIMIT = 4", "`LIMIT` in steps.py:6 changed"),
        ("steps.py", "def entry(rows)", "def entry(rows=())", "`entry()` in steps.py:9 changed"),
    ],
)
def test_what_matters_and_how_it_is_called(
    project: Callable[..., Project], file: str, old: str, new: str, text: str
) -> None:
    assert project(STEPS).edit(file, old, new) == [text]


def test_a_new_and_a_lost_helper(project: Callable[..., Project]) -> None:
    files = project(STEPS)
    assert files.edit("features.py", "return twice(row)", "return added(row)\n\ndef added(x):\n    return x") == [
        "`scale()` in features.py:15 changed",
        "`added()` in features.py:18 is new",
        "`twice` in features.py:6 is gone",
    ]


IMPORT_STYLES = {
    "module": {"steps.py": "import pkg.helpers\ndef entry():\n    return pkg.helpers.target()"},
    "module as": {"steps.py": "import pkg.helpers as h\ndef entry():\n    return h.target()"},
    "from package": {"steps.py": "from pkg import helpers\ndef entry():\n    return helpers.target()"},
    "name as": {"steps.py": "from pkg.helpers import target as t\ndef entry():\n    return t()"},
    "inside the function": {"steps.py": "def entry():\n    from pkg.helpers import target\n    return target()"},
    "inside a nested function": {
        "steps.py": """
            def entry():
                def inner():
                    import pkg.helpers
                    return pkg.helpers.target()
                return inner
        """
    },
    "inside a class": {
        "steps.py": """
            from pkg import helpers
            class Thing:
                def go(self):
                    return helpers.target()
            def entry():
                return Thing()
        """
    },
    "default": {"steps.py": "from pkg.helpers import target\ndef entry(f=target):\n    return f"},
    "decorator": {"steps.py": "from pkg.helpers import target\n@target\ndef entry():\n    return 1"},
    "annotation in quotes": {
        "steps.py": """
            from pkg.helpers import target
            class Box:
                item: 'list[target]'
            def entry():
                return Box()
        """
    },
    "re-export": {
        "pkg/__init__.py": "from .helpers import target",
        "steps.py": "import pkg\ndef entry():\n    pkg.target()",
    },
    "re-export under a name, twice": {
        "pkg/__init__.py": "from .middle import aim",
        "pkg/middle.py": "from .helpers import target as aim",
        "steps.py": "from pkg import aim as go\ndef entry():\n    return go()",
    },
    "star": {"steps.py": "from pkg.helpers import *\ndef entry():\n    return target()"},
    "star, then re-export": {
        "pkg/__init__.py": "from .helpers import *",
        "steps.py": "from pkg import target\ndef entry():\n    return target()",
    },
    "star over star": {
        "pkg/middle.py": "from .helpers import *",
        "steps.py": "from pkg.middle import *\ndef entry():\n    return target()",
    },
    "relative from a sibling": {
        "pkg/steps_inside.py": """
            from . import helpers
            from .helpers import target
            def go():
                return helpers.target()
        """,
        "steps.py": "from pkg.steps_inside import go\ndef entry():\n    return go()",
    },
    "relative from below": {
        "pkg/deep/__init__.py": "",
        "pkg/deep/low.py": "from ..helpers import target\ndef go():\n    return target()",
        "steps.py": "import pkg.deep.low\ndef entry():\n    return pkg.deep.low.go()",
    },
    "lazy attribute of a package": {
        "pkg/__init__.py": "def __getattr__(name):\n    from pkg.helpers import target\n    return target",
        "steps.py": "from pkg import anything\ndef entry():\n    return anything()",
    },
    "one branch or the other": {
        "steps.py": """
            try:
                from nowhere import target
            except ImportError:
                from pkg.helpers import target
            def entry():
                return target()
        """
    },
    "module passed as a value": {
        "steps.py": "from pkg import helpers\ndef entry(name):\n    return getattr(helpers, name)()"
    },
    "module loaded by a literal": {
        "steps.py": """
            import importlib
            def entry(name):
                return getattr(importlib.import_module('pkg.helpers'), name)
        """
    },
    "assigned name": {
        "steps.py": "from pkg.helpers import target\nTABLE = {'a': target}\ndef entry():\n    return TABLE['a']()"
    },
    "looked up in globals": {
        "steps.py": "from pkg.helpers import target\ndef entry(name):\n    return globals()[name]()",
    },
    "called at import by an effect": {
        "steps.py": "from pkg.helpers import target\nprint(target())\ndef entry():\n    return 1"
    },
    "in a package without __init__": {
        "space/low/helpers.py": "from pkg.helpers import target",
        "steps.py": "from space.low import helpers\ndef entry():\n    return helpers.target()",
    },
}


@pytest.mark.parametrize("style", IMPORT_STYLES)
def test_every_way_to_reach_a_helper(project: Callable[..., Project], style: str) -> None:
    files = project({"pkg/__init__.py": "", "pkg/helpers.py": "def target():\n    return 1\n", **IMPORT_STYLES[style]})
    assert "pkg.helpers:target" in files.names()
    assert files.edit("pkg/helpers.py", "return 1", "return 2") == ["`target()` in pkg/helpers.py:1 changed"]


AT_IMPORT = {
    "append": "TABLE = []\nTABLE.append(1)\n",
    "if": "import os\nif os.name:\n    value = 1\n",
    "loop": "for value in range(1):\n    pass\n",
    "subscript": "TABLE = {}\nTABLE['a'] = 1\n",
    "decorator that registers": "TABLE = []\n@TABLE.append\ndef handler():\n    return 1\n",
    "assigned call that registers": "def register(x):\n    return x\nhandler = register(1)\n",
}


@pytest.mark.parametrize("case", AT_IMPORT)
def test_what_runs_at_import_counts(project: Callable[..., Project], case: str) -> None:
    files = project({"registry.py": AT_IMPORT[case], "steps.py": "import registry\ndef entry():\n    return 1\n"})
    text = AT_IMPORT[case]
    [changed] = files.edit("registry.py", text, text.replace("1", "2"))
    assert "registry.py" in changed


def test_the_top_level_has_a_name_of_its_own(project: Callable[..., Project]) -> None:
    files = project({"steps.py": "T = []\n\nT.append(1)\n\ndef entry():\n    return 1\n"})
    assert files.edit("steps.py", "append(1)", "append(2)") == ["the top level of steps.py:3 changed"]


@pytest.mark.parametrize(
    "text",
    [
        "if __name__ == '__main__':\n    print(1)\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nowhere import N1\n",
        "class Plain:\n    value = 1\nplain = Plain()\n",
        "from dataclasses import dataclass\n@dataclass\nclass Data:\n    value: int = 1\n",
        "'''text 1'''\n",
    ],
)
def test_what_does_not_run_at_import_or_only_binds(project: Callable[..., Project], text: str) -> None:
    files = project({"steps.py": f"{text}\ndef entry():\n    return 0\n"})
    assert files.edit("steps.py", text, text.replace("1", "2")) == []


def test_subclasses_count_where_they_may_be_found_by_inheritance(project: Callable[..., Project]) -> None:
    files = project(
        {
            "base.py": "class Base:\n    def __init_subclass__(cls):\n        print(cls)\n",
            "plugins.py": "from base import Base\nclass Plugin(Base):\n    value = 1\n",
            "steps.py": "import plugins\nfrom base import Base\ndef entry():\n    return Base()\n",
        }
    )
    assert files.edit("plugins.py", "value = 1", "value = 2") == ["`Plugin` in plugins.py:2 changed"]


def test_local_names_are_not_mistaken_for_the_module_s(project: Callable[..., Project]) -> None:
    files = project(
        {
            "steps.py": """
                def rows():
                    return 1
                def entry(rows):
                    rows = [rows for rows in rows]
                    return rows
            """
        }
    )
    assert files.names() == {"steps:entry"}


def test_user_modules_may_import_each_other(project: Callable[..., Project]) -> None:
    files = project(
        {
            "a.py": "from b import *\nimport b\nfrom b import x\ndef fa(n):\n    return b.fb(n - 1)\n",
            "b.py": "from a import *\nimport a\nfrom a import x\ndef fb(n):\n    return a.fa(n - 1)\n",
            "steps.py": "from a import fa\ndef entry():\n    return fa(3)\n",
        }
    )
    assert {"a:fa", "b:fb"} <= files.names()
    assert files.edit("b.py", "n - 1", "n - 2") == ["`fb()` in b.py:4 changed"]


def test_libraries_count_by_version_and_python_not_at_all(project: Callable[..., Project]) -> None:
    files = project(
        {
            "steps.py": "import os, json\nimport numpy as np\nfrom yaml import safe_load\n\ndef entry():\n"
            "    import missing_library\n    return np.linalg.norm, safe_load, os.path.join\n"
        }
    )
    found = files.fingerprint()
    assert set(found.symbols) == {"steps:entry"}
    assert set(found.distributions) == {"numpy", "pyyaml", "missing_library"}
    newer = found.model_copy(update={"distributions": {**found.distributions, "numpy": "99.0"}})
    assert differences(found, newer) == [f"numpy {found.distributions['numpy']} -> 99.0"]
    assert newer.digest != found.digest


def test_heliostat_s_own_code_counts_like_the_user_s() -> None:
    found = fingerprint(["heliostat.values:digest"])
    assert set(found.symbols) == {f"heliostat.values:{name}" for name in ("digest", "canonical_json", "plain", "_key")}
    assert found.files[0].endswith("heliostat/values.py")


def test_a_compiled_module_counts_by_its_bytes(project: Callable[..., Project]) -> None:
    files = project({"steps.py": "import fast\ndef entry():\n    return fast.go()\n"})
    binary = files.folder / f"fast{EXTENSION_SUFFIXES[0]}"
    binary.write_bytes(b"one")
    before = files.fingerprint()
    binary.write_bytes(b"two")
    assert differences(before, files.fingerprint()) == [f"the top level of {binary.name}:1 changed"]


def test_tells_which_modules_of_the_user_are_imported(project: Callable[..., Project]) -> None:
    files = project(
        {
            "pkg/__init__.py": "",
            "pkg/used.py": "import pkg.unused\nfrom heliostat.values import digest\ndef f():\n    return digest(1)\n",
            "pkg/unused.py": "",
            "pkg/elsewhere.py": "",
            "steps.py": """
                from pkg.used import f
                def entry():
                    return f()
                def other():
                    import pkg.elsewhere
            """,
        }
    )
    assert files.fingerprint().modules == {
        "pkg": files.folder / "pkg/__init__.py",
        "pkg.unused": files.folder / "pkg/unused.py",
        "pkg.used": files.folder / "pkg/used.py",
        "steps": files.folder / "steps.py",
    }


def test_nothing_of_the_user_s_is_run(project: Callable[..., Project]) -> None:
    files = project(
        {
            "pkg/__init__.py": "raise SystemExit",
            "pkg/a.py": "raise SystemExit\ndef f(): ...\n",
            "steps.py": "import pkg.a\ndef entry():\n    return pkg.a.f()\nraise SystemExit\n",
        }
    )
    assert "pkg.a:f" in files.names()
    assert {"steps", "pkg", "pkg.a"}.isdisjoint(sys.modules)


def test_the_place_on_disk_does_not_count(tmp_path: Path) -> None:
    one, two = Project(tmp_path / "one", STEPS), Project(tmp_path / "two" / "below", STEPS)
    assert one.fingerprint().digest == two.fingerprint().digest


def test_several_references_together(project: Callable[..., Project]) -> None:
    files = project(STEPS)
    path = files.folder / "steps.py"
    both = fingerprint([f"{path}:entry", f"{path}:other"])
    assert set(both.symbols) == files.names("entry") | files.names("other")


@pytest.mark.parametrize("name", ["nothing", "nothing.at.all"])
def test_an_unknown_name(project: Callable[..., Project], name: str) -> None:
    with pytest.raises(ReferenceNotFound, match="nothing defines"):
        project(STEPS).fingerprint(name)


def test_an_unknown_module() -> None:
    with pytest.raises(ReferenceNotFound):
        fingerprint(["heliostat.nowhere:entry"])


def test_an_import_that_nobody_can_follow_is_refused(project: Callable[..., Project]) -> None:
    files = project(
        {"steps.py": "from importlib import import_module\n\ndef entry(name):\n    return import_module(name)\n"}
    )
    with pytest.raises(UserError, match="known only when it runs") as caught:
        files.fingerprint()
    assert caught.value.where == f"{files.folder / 'steps.py'}:4"


def test_a_file_that_is_not_python(project: Callable[..., Project]) -> None:
    files = project(
        {"steps.py": "import broken\ndef entry():\n    return broken.f()\n", "broken.py": "x = 1\ndef f(:\n"}
    )
    with pytest.raises(UserError, match="not Python") as caught:
        files.fingerprint()
    assert caught.value.where == f"{files.folder / 'broken.py'}:2"


def test_needs_no_heavy_import() -> None:
    code = "import sys, heliostat.experiment.pipeline; print({'ray', 'torch', 'mlflow', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_code_of_ours_that_runs_was_reached() -> None:
    """The walk, held against what the interpreter calls when the walk itself runs."""
    ours, called = str(Path(heliostat.__file__).parent), set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ours):
            called.add(f"{frame.f_globals['__name__']}:{frame.f_code.co_qualname.partition('.')[0]}")

    parse.cache_clear()
    sys.setprofile(note)
    try:
        found = fingerprint(["heliostat.experiment.fingerprint:fingerprint"])
    finally:
        sys.setprofile(None)
    assert called <= found.symbols.keys()
    assert {"heliostat.experiment.names:Names", "heliostat.experiment.syntax:_chains"} <= called


USES = [
    ("import {module}", "{module}.{name}()"),
    ("import {module} as alias_{name}", "alias_{name}.{name}()"),
    ("from {module} import {name}", "{name}()"),
    ("from {module} import {name} as other_{name}", "[other_{name} for _ in range(2)]"),
]
NUM_FUNCTIONS, NUM_MODULES = 6, 3


@given(
    edges=st.sets(st.tuples(st.integers(0, NUM_FUNCTIONS - 1), st.integers(0, NUM_FUNCTIONS - 1)), max_size=12),
    styles=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=36, max_size=36),
    edited=st.integers(0, NUM_FUNCTIONS - 1),
)
def test_an_edit_changes_exactly_what_reaches_it(
    edges: set[tuple[int, int]], styles: list[tuple[int, bool]], edited: int
) -> None:
    """Random call graphs over three modules, cycles included, against reachability computed on the graph."""

    def source(module: int, version: int) -> str:
        head, body = [], []
        for function in range(module, NUM_FUNCTIONS, NUM_MODULES):
            lines = [f"    value = {version if function == edited else 0}"]
            for callee in sorted(callee for caller, callee in edges if caller == function):
                style, local = styles[function * NUM_FUNCTIONS + callee]
                line, call = (text.format(module=f"m{callee % NUM_MODULES}", name=f"f{callee}") for text in USES[style])
                lines += [f"    {line}"] if local else []
                head += [] if local else [line]
                lines.append(f"    {call}")
            body += [f"def f{function}():", *lines]
        return "\n".join([*head, *body]) + "\n"

    reaching = {edited}
    for _ in range(NUM_FUNCTIONS):
        reaching |= {caller for caller, callee in edges if callee in reaching}
    with TemporaryDirectory() as name:
        folder = Path(name)
        digests = []
        for version in (1, 2):
            write_files(folder, {f"m{module}.py": source(module, version) for module in range(NUM_MODULES)})
            references = [
                f"{folder / f'm{function % NUM_MODULES}.py'}:f{function}" for function in range(NUM_FUNCTIONS)
            ]
            digests.append([fingerprint([reference]).digest for reference in references])
    assert {function for function in range(NUM_FUNCTIONS) if digests[0][function] != digests[1][function]} == reaching
