"""YAML that remembers where each value was written, what it extends, and what was wrong with it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.document import Document, Keys, read
from heliostat.errors import ConfigError

TEXT = st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cs"]), max_size=12)
KEYS = TEXT.filter(lambda text: text not in {"<<", "extends"})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def document(text: str, *overrides: str) -> Document:
    return read(write("a.yaml", text), overrides)


def mistakes(text: str, *overrides: str) -> list[str]:
    return [str(mistake) for mistake in document(text, *overrides).mistakes]


def refused(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        document(text, *overrides)
    return list(caught.value.mistakes)


def all_keys(data: Any, above: Keys = ()) -> set[Keys]:
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return {above}.union(*(all_keys(item, (*above, key)) for key, item in items))


@given(DATA, st.sampled_from([None, 2]))
def test_what_was_written_is_read_back_and_every_value_has_an_origin(data: dict[str, Any], indent: int | None) -> None:
    found = document(json.dumps(data, indent=indent))
    assert found.data == data
    assert set(found.origins) == all_keys(data)
    assert found.mistakes == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-5", 1e-5),
        ("2E6", 2e6),
        (".5", 0.5),
        ("-7", -7),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("True", True),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2013-01-01", "2013-01-01"),
        ("'1e-3'", "1e-3"),
        ("!!str 5", "5"),
        ("1e", "1e"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = document(f"a: {text}").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_always_text() -> None:
    assert document("{1: a, on: b, null: c, 2013-01-01: d}").data == {
        "1": "a",
        "on": "b",
        "null": "c",
        "2013-01-01": "d",
    }


def test_an_origin_is_the_place_of_the_key_or_of_the_item() -> None:
    found = document("# first\na:\n  b: 1\n  c: [5, {d: 6}]\n")
    origins = {keys: str(origin) for keys, origin in found.origins.items()}
    assert origins == {
        (): "a.yaml:1:1",
        ("a",): "a.yaml:2:1",
        ("a", "b"): "a.yaml:3:3",
        ("a", "c"): "a.yaml:4:3",
        ("a", "c", 0): "a.yaml:4:7",
        ("a", "c", 1): "a.yaml:4:10",
        ("a", "c", 1, "d"): "a.yaml:4:11",
    }
    assert str(found.origin(("a", "missing", "deeper"))) == "a.yaml:2:1"


def test_extends_merges_mappings_and_replaces_the_rest() -> None:
    write("base/deep.yaml", "a: {x: 1, y: 2, z: {p: 1}}\nlist: [1, 2]\nonly: base")
    write("base/mid.yaml", "extends: deep.yaml\na: {y: 3}")
    found = document("extends: base/mid.yaml\na: {z: {q: 4}}\nlist: [9]\nb: 5")
    assert found.data == {"a": {"x": 1, "y": 3, "z": {"p": 1, "q": 4}}, "list": [9], "only": "base", "b": 5}
    assert str(found.origin(("a", "x"))) == "base/deep.yaml:1:5"
    assert str(found.origin(("a", "y"))) == "base/mid.yaml:2:5"
    assert str(found.origin(("a", "z", "q"))) == "a.yaml:2:9"
    assert str(found.origin(("list", 0))) == "a.yaml:3:8"
    assert ("list", 1) not in found.origins
    assert found.origin(("only",)).directory == Path("base")


def test_the_later_of_several_bases_wins_and_a_base_may_be_shared() -> None:
    write("root.yaml", "a: 0\nb: 0\nc: 0")
    write("one.yaml", "extends: root.yaml\na: 1\nb: 1")
    write("two.yaml", "extends: root.yaml\nb: 2")
    assert document("extends: [one.yaml, two.yaml]").data == {"a": 0, "b": 2, "c": 0}


def test_extending_in_a_circle_names_the_circle() -> None:
    write("b.yaml", "extends: c.yaml")
    write("c.yaml", "x: 1\nextends: a.yaml")
    expected = "c.yaml:2:1: extends: goes round in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    assert refused("extends: b.yaml") == [expected]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("extends: gone.yaml", "a.yaml:1:1: extends: there is no file gone.yaml"),
        ("a: 1\nextends:\n  - gone.yaml", "a.yaml:3:5: extends: there is no file gone.yaml"),
        ("a: [1, 2\nb: 3", "a.yaml:2:2: is not YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2", "a.yaml:2:1: is not YAML: while scanning for the next token found character '\\t'"),
        ("a: 1\n---\nb: 2", "a.yaml:2:1: is not YAML: expected a single document in the stream"),
        ("a: \x00", "a.yaml:1:1: is not YAML: unacceptable character #x0000"),
        ("- 1", "a.yaml:1:1: must be a mapping of keys to values"),
        ("a: &again [*again]", "a.yaml:1:1: has no end: an alias (*name) that contains itself"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(text: str, mistake: str) -> None:
    (found,) = refused(text)
    assert found.startswith(mistake)


def test_all_unreadable_files_are_reported_together() -> None:
    write("b.yaml", "[")
    write("c.yaml", "{")
    found = refused("extends: [b.yaml, c.yaml, d.yaml]", "nonsense", "x={")
    assert [mistake.partition(": ")[0] for mistake in found] == [
        "b.yaml:1:2",
        "c.yaml:1:2",
        "a.yaml:1:27",
        *["--set nonsense", "--set x"],
    ]


def test_a_missing_file_says_what_to_do() -> None:
    write("quickstart.yaml", "a: 1")
    with pytest.raises(ConfigError, match=r"quikstart.yaml: there is no such file") as caught:
        read(Path("quikstart.yaml"))
    assert caught.value.next_step == "did you mean quickstart.yaml?"
    with pytest.raises(ConfigError) as caught:
        read(Path("elsewhere/zzz.yaml"))
    assert caught.value.next_step == f"relative paths start at {Path.cwd()}"


def test_bytes_that_are_not_utf_8_are_a_mistake_too() -> None:
    Path("a.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match=r"a.yaml:1:1: cannot be read: 'utf-8' codec"):
        read(Path("a.yaml"))


def test_mistakes_that_leave_the_file_readable_are_gathered() -> None:
    text = "a: 1\nb: {c: 1, c: 2}\na: 3\nd: !secret x\ne: {<<: {f: 1}}\ng: !!int x\nextends: [3]"
    assert mistakes(text, "x", "=1", "a.z=1") == [
        "a.yaml:2:11: b.c: is written twice; the first is at a.yaml:2:5",
        "a.yaml:3:1: a: is written twice; the first is at a.yaml:1:1",
        "a.yaml:4:4: d: cannot be read as '!secret'",
        "a.yaml:5:5: e: keys must be text, without YAML's `<<`: use `extends` to share values",
        "a.yaml:6:4: g: cannot be read as 'int'",
        "a.yaml:7:11: extends: must be the path of a file, or a list of them",
        "--set x: must be KEY=VALUE",
        "--set : must be KEY=VALUE",
        "--set a.z: a: is not a mapping, so nothing can be set inside it",
    ]


def test_an_empty_file_is_an_empty_document() -> None:
    assert document("# nothing yet").data == {}


@pytest.mark.parametrize(
    ("override", "data"),
    [
        ("a.b=1e-3", {"a": {"b": 0.001, "c": 2}, "n": None}),
        ("a.b=", {"a": {"b": None, "c": 2}, "n": None}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": 2}, "n": None}),
        ("a={c: [1, 2]}", {"a": {"c": [1, 2]}, "n": None}),
        ("n.new.deep=1", {"a": {"b": 1, "c": 2}, "n": {"new": {"deep": 1}}}),
        ("o.p=1", {"a": {"b": 1, "c": 2}, "n": None, "o": {"p": 1}}),
    ],
)
def test_an_override_replaces_the_value_at_a_path(override: str, data: dict[str, Any]) -> None:
    found = document("a: {b: 1, c: 2}\nn: null", override)
    assert found.data == data
    assert set(found.origins) == all_keys(data)


def test_an_override_is_its_own_origin_and_its_paths_start_here() -> None:
    found = document("a: {b: 1}", "a.c={d: [1]}")
    for keys in [("a", "c"), ("a", "c", "d"), ("a", "c", "d", 0)]:
        assert str(found.origin(keys)) == "--set a.c"
    assert found.origin(("a", "c")).directory == Path()
    assert str(found.origin(("a", "b"))) == "a.yaml:1:5"


def test_an_override_reaches_keys_that_hold_dots() -> None:
    found = document(
        "space: {train.lr: {uniform: [0, 1]}, train: {x: 1}}", "space.train.lr.uniform=[2, 3]", "space.train.x=2"
    )
    assert found.data == {"space": {"train.lr": {"uniform": [2, 3]}, "train": {"x": 2}}}


def test_overrides_apply_in_order() -> None:
    assert document("a: 1", "a=2", "a=3").data == {"a": 3}
