"""Plan files: they round-trip, are short enough to edit, and tell mistakes with their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.document import dotted
from heliostat.errors import ConfigError
from heliostat.placement.plan_file import contradictions, load, save, to_json
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.strategy import Strategy
from tests.placement.view.plans import A100, CLUSTER, JOB, plan, stage, strategy, uneven


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


def test_a_plan_must_be_one_that_can_be_run(tmp_path: Path) -> None:
    def close(data: dict[str, Any]) -> None:
        embedding, layer, head = data["workload"]["blocks"]
        shut = layer | {"opens_stage": False, "count": 10}
        data["workload"]["blocks"] = [embedding, layer | {"count": 15}, shut, layer | {"count": 15}, head]

    (found,) = edited(tmp_path, close)
    assert "strategy.stages.1.first_block: is 16, where the model cannot be cut" in found


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"schedule": "zero-bubble", "zero": 2}, ["stages.0.zero: is 2, but zero-bubble goes with 0 and 1 alone"]),
        ({"schedule": "zero-bubble", "zero": 1}, []),
        (
            {"schedule": "interleaved", "chunks": 2, "micro_batch": 4},
            ["first_block: a chunk begins with block 8, where"],
        ),
    ],
)
def test_what_cannot_be_run_of_a_strategy(fields: dict[str, Any], told: list[str]) -> None:
    embedding, layer, head = JOB.workload.blocks
    closed = (
        embedding,
        layer.model_copy(update={"count": 7}),
        layer.model_copy(update={"count": 1, "opens_stage": False}),
    )
    blocks = (*closed, layer.model_copy(update={"count": 32}), head)
    workload = JOB.workload.model_copy(update={"blocks": blocks})
    found = [f"{dotted(keys)}: {message}" for keys, message in contradictions(workload, strategy(**fields))]
    assert len(found) == len(told) * (4 if "zero" in fields else 1)
    assert all(any(words in one for one in found) for words in told)


def test_stages_must_agree_on_every_round() -> None:
    split = strategy()
    other = split.stages[1].model_copy(update={"replicas": stage(16, 31, A100, 2, micro_batch=3).replicas})
    uneven_rounds = split.model_copy(update={"stages": (split.stages[0], other, *split.stages[2:])})
    ((keys, message),) = contradictions(JOB.workload, uneven_rounds)
    assert keys == ("stages", 1, "replicas")
    assert message == "take 6 samples together in round 0, those of stage 0 take 4"


def test_where_stages_may_begin_is_kept(tmp_path: Path) -> None:
    embedding, *rest = JOB.workload.blocks
    workload = JOB.workload.model_copy(
        update={"blocks": (embedding, rest[0].model_copy(update={"opens_stage": False, "count": 1}), *rest)}
    )
    split = strategy((17, 32, 38, 43))
    save(plan().model_copy(update={"workload": workload, "strategy": split}), tmp_path / "plan.json")
    assert load(tmp_path / "plan.json").workload == workload
    assert workload.cuts == tuple(range(2, 43))


def test_samples_that_do_not_add_up(tmp_path: Path) -> None:
    found = edited(tmp_path, lambda data: data["strategy"]["stages"][2]["replicas"][0].update(count=1))
    assert "the replicas of stage 2 share 32 of 64 samples" in found[0]


def test_what_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[]", "{", "{}"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"x\.json:1:"):
            load(path)
