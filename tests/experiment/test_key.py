"""The key of a step, and the reasons why two keys differ."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.experiment.environment import EnvironmentLock
from heliostat.experiment.fingerprint import CodeFingerprint, Symbol
from heliostat.experiment.key import StepKey, changes, step_key
from heliostat.experiment.step import Artifact, Step, StepContext, StepResult, nothing_missing

LOCK = EnvironmentLock(python="3.11", machine="x86_64", distributions={"torch": "2.12"})


# any function of an importable module will do: a key is computed without calling it
fingerprinted = cast("Callable[[StepContext], StepResult]", nothing_missing)


def key(**update: Any) -> StepKey:
    return StepKey(
        **{
            "code": CodeFingerprint(symbols={}, distributions={"torch": "2.12"}, modules={}),
            "options": {"train": {"lr": 0.002, "epochs": 4}},
            "inputs": {"data": "aa"},
            "facts": {"cluster": "2 cpu"},
            "environment": LOCK,
            **update,
        }
    )


def code(digest: str) -> CodeFingerprint:
    symbol = Symbol(module="features", name="normalize", kind="function", file="/x/features.py", line=41, digest=digest)
    return CodeFingerprint(symbols={"features:normalize": symbol}, distributions={"torch": "2.12"}, modules={})


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ({"code": code("1")}, {"code": code("2")}, ["code: `normalize()` in features.py:41 changed"]),
        ({}, {"options": {"train": {"lr": 0.01, "epochs": 4}}}, ["config: train.lr 0.002 -> 0.01 (--set train.lr)"]),
        ({}, {"options": {"train": {"lr": 0.002}}}, ["config: train.epochs 4 is gone"]),
        ({"options": {"a": {}}}, {"options": {"a": {"b": "x"}}}, ["config: a {} is gone", "config: a.b x is new"]),
        ({"options": {"a.b": 1}}, {"options": {"a": {"b": 1}}}, ["config: a.b 1 is new", "config: a.b 1 is gone"]),
        ({"options": {"a": None}}, {"options": {"a": [1, 2]}}, ["config: a null -> [1,2]"]),
        ({"options": {"a": "x" * 99}}, {"options": {"a": "y"}}, [f"config: a {'x' * 60}... -> y"]),
        ({}, {"inputs": {"data": "bb"}}, ["input: data changed (data ran again)"]),
        ({"inputs": {"plan": "aa"}}, {"inputs": {"plan": "bb"}}, ["input: plan changed (an earlier result of it)"]),
        ({}, {"inputs": {"plan": "aa"}}, ["input: data is gone", "input: plan is new"]),
        ({}, {"facts": {"cluster": "4 cpu"}}, ["facts: cluster 2 cpu -> 4 cpu"]),
        ({}, {"environment": LOCK.model_copy(update={"python": "3.12"})}, ["environment: python 3.11 -> 3.12"]),
        (
            {},
            {
                "code": CodeFingerprint(symbols={}, distributions={"torch": "2.13"}, modules={}),
                "environment": LOCK.model_copy(update={"distributions": {"torch": "2.13"}}),
            },
            ["environment: torch 2.12 -> 2.13"],
        ),
        ({}, {}, []),
    ],
)
def test_every_difference_is_named(before: dict[str, Any], after: dict[str, Any], texts: list[str]) -> None:
    old, new = key(**before), key(**after)
    assert changes(old, new, origins={"train.lr": "--set train.lr"}, ran=["data"]) == texts
    assert (old.digest == new.digest) == (not texts)


def test_all_differences_are_named_not_only_the_first() -> None:
    new = key(options={"train": {"lr": 0.1, "epochs": 5}}, inputs={"data": "bb"}, facts={"cluster": "1"})
    assert len(changes(key(), new, origins={}, ran=[])) == 4


OPTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text("ab", max_size=2), values, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from("ab"), OPTIONS), st.dictionaries(st.sampled_from("ab"), OPTIONS))
def test_there_is_a_reason_exactly_when_the_key_differs(one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    old, new = key(options=one), key(options=two)
    assert bool(changes(old, new, origins={}, ran=[])) == (old.digest != new.digest)


def test_a_key_covers_the_code_of_the_step_and_of_its_references() -> None:
    step = Step(name="s", run=fingerprinted, references=("heliostat.values:digest",), options={"a": (1, 2)})
    found = step_key(step, {"data": StepResult(outputs={"x": 1})}, LOCK)
    assert {"heliostat.experiment.step:nothing_missing", "heliostat.values:digest"} <= found.code.symbols.keys()
    assert found.options == {"a": [1, 2]}
    assert found.inputs == {"data": StepResult(outputs={"x": 1}).digest}


def test_options_that_are_not_json_are_refused() -> None:
    with pytest.raises(TypeError, match="canonical form"):
        step_key(Step(name="s", run=fingerprinted, options={"a": object()}), {}, LOCK)


def test_metrics_do_not_count_in_a_result() -> None:
    artifact = Artifact(kind="table", uri="/t", digest="1")
    result = StepResult(outputs={"a": 1}, artifacts=(artifact,), metrics={"wall_s": 1.0})
    assert result.digest == StepResult(outputs={"a": 1}, artifacts=(artifact,), metrics={"wall_s": math.nan}).digest
    assert result.digest != StepResult(outputs={"a": 2}, artifacts=(artifact,)).digest
    assert (
        result.digest != StepResult(outputs={"a": 1}, artifacts=(artifact.model_copy(update={"digest": "2"}),)).digest
    )


def test_outputs_are_the_same_fresh_and_read_back() -> None:
    result = StepResult(outputs={"artifact": Artifact(kind="k", uri="u", digest="d"), "pair": (1, 2)})
    assert result.outputs == {"artifact": {"kind": "k", "uri": "u", "digest": "d"}, "pair": [1, 2]}
