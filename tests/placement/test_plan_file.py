"""Plan files: they round-trip, are short enough to edit, and tell mistakes with their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.errors import ConfigError
from heliostat.placement.plan_file import load, save, to_json
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.strategy import Strategy
from tests.placement.view.plans import CLUSTER, JOB, plan, strategy, uneven


@pytest.mark.parametrize("split", [strategy(), strategy(zero=1), uneven()])
def test_a_plan_round_trips(tmp_path: Path, split: Strategy) -> None:
    written = plan(split)
    save(written, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json").model_dump() == written.model_dump()
    assert load(tmp_path / "plan.json").cluster == CLUSTER


def test_equal_replicas_are_written_once() -> None:
    text = to_json(plan(uneven()))
    assert '{"count": 16, "device_kind": "V100-32GB-SXM", "num_samples": 1, "micro_batch": 1}' in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_best_of_a_search_becomes_a_plan() -> None:
    made = plan()
    best, *rest = made.runners_up
    outcome = Outcome(best=best, runners_up=tuple(rest), refused={"x": 3}, num_candidates=7, cut_by_budget=True)
    found = type(made).of(outcome, JOB.workload, CLUSTER, JOB.wanted)
    assert (found.strategy, found.prediction) == (best.strategy, best.prediction)
    assert (found.refused, found.num_candidates, found.cut_by_budget) == ({"x": 3}, 7, True)


def edited(tmp_path: Path, edit: Callable[[dict[str, Any]], object]) -> list[str]:
    data = json.loads(to_json(plan()))
    edit(data)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ConfigError) as error:
        load(path)
    return [one.removeprefix(f"{path}:") for one in error.value.mistakes]


def test_mistakes_of_an_edit_are_told_with_their_place(tmp_path: Path) -> None:
    def break_stages(data: dict[str, Any]) -> None:
        first, second, *_ = data["strategy"]["stages"]
        first["zeor"] = first.pop("zero")
        second["replicas"][0]["micro_batch"] = 0
        data["strategy"]["schedule"] = "1f2b"

    found = edited(tmp_path, break_stages)
    assert len(found) == 3
    for line, words in zip(
        found,
        (
            "strategy.stages.0.zeor: unknown key (did you mean 'zero'?)",
            "strategy.stages.1.replicas.0.micro_batch: must be greater than 0, got 0",
            "strategy.schedule: must be 'none', 'gpipe', '1f1b', 'interleaved' or 'zero-bubble', got \"1f2b\"",
        ),
        strict=True,
    ):
        place, _, rest = line.partition(": ")
        assert place.split(":")[0].isdigit()
        assert rest.startswith(words)


@pytest.mark.parametrize(
    ("stage", "key", "value", "told"),
    [
        (3, "end_block", 41, "strategy.stages.3.end_block: is 41, but there are 42 blocks"),
        (1, "first_block", 17, "strategy.stages: stage 1 must begin at block 16"),
        (0, "tensor_parallel", 64, "strategy.stages.0.tensor_parallel: is 64, but at most 40 share a layer"),
        (2, "replicas", [], "strategy.stages.2.replicas: must not be empty"),
    ],
)
def test_a_plan_must_be_whole(tmp_path: Path, stage: int, key: str, value: object, told: str) -> None:
    found = edited(tmp_path, lambda data: data["strategy"]["stages"][stage].update({key: value}))
    assert len(found) == 1
    assert told in found[0]


def test_samples_that_do_not_add_up(tmp_path: Path) -> None:
    found = edited(tmp_path, lambda data: data["strategy"]["stages"][2]["replicas"][0].update(count=1))
    assert "the replicas of stage 2 share 32 of 64 samples" in found[0]


def test_what_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[]", "{", "{}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"x\.json:1:"):
            load(path)
