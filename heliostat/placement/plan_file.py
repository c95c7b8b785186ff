"""Plan files: a plan with all it was made from, to keep, to edit by hand and to check again.

A plan file is JSON: the strategy, what it is predicted to cost, what else was looked at, and the cluster and the
workload it is for. Equal replicas are written once, with `count`. Mistakes are told with their place, like those of a
cluster file. Only `strategy` is there to be edited: `heliostat plan check` predicts its cost anew.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, ValidationError

from heliostat.cluster.spec import ClusterSpec
from heliostat.document import Document, Keys, Mistake, read
from heliostat.errors import ConfigError
from heliostat.files import write_whole
from heliostat.placement.constraints import Constraints
from heliostat.placement.rounds import disagreements
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.menu import goes_with
from heliostat.placement.search.outcome import Chosen, Found, Outcome
from heliostat.placement.spans import Span, spans
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.values import Frozen
from heliostat.wording import explain, place

LINE_WIDTH, SHORT = 118, 40
"""Characters of a line, and of an item that shares one with others."""
_GLUE = "\x00"
"""Stands for a space inside an item, where no line may end."""
_NEXT_STEP = "`heliostat plan WORKLOAD --json` prints a plan file"


class PlanFile(Chosen):
    """A plan, and what it was made from."""

    version: Literal[1] = 1
    """Of the form of the file."""
    wanted: Constraints
    """What was asked for."""
    cluster: ClusterSpec
    workload: WorkloadProfile

    @classmethod
    def of(cls, outcome: Outcome, workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints) -> "PlanFile":
        """The best that a search found."""
        return cls(wanted=wanted, cluster=cluster, workload=workload, **cls.fields_of(outcome))


def load(path: Path) -> PlanFile:
    """The plan in the file `path`.

    Raises:
        ConfigError: with every mistake in it as `file:line:col: keys: message`.
    """
    document = read(path)
    mistakes = list(document.mistakes)
    try:
        row = _PlanRow.model_validate(document.data)
    except ValidationError as error:
        mistakes += [
            _mistake(document, place(one, document.data), explain(one, {}, _known_keys(one["loc"])))
            for one in error.errors()
        ]
        raise _refused(mistakes) from None
    found = None
    try:
        found = row.plan()
        wrong = list(contradictions(found.workload, found.strategy))
    except ValidationError as error:
        wrong = [
            (one["loc"], explain(one, {}, ())) if one["loc"] else (("stages",), str(one["ctx"]["error"]))
            for one in error.errors()
        ]
    mistakes += [_mistake(document, ("strategy", *keys), message) for keys, message in wrong]
    if mistakes:
        raise _refused(mistakes)
    assert found is not None
    return found


def save(plan: PlanFile, path: Path) -> None:
    """Write `plan` to `path`, whole or not at all."""
    write_whole(path, to_json(plan) + "\n")


def to_json(plan: PlanFile) -> str:
    """`plan` as JSON for people: equal replicas folded, what is short on one line."""
    data = plan.model_dump(mode="json", exclude={"workload", "wanted"})
    wanted = plan.wanted.model_dump(mode="json", exclude_defaults=True, exclude={"execution"})
    first = {name: data.pop(name) for name in ("version", "strategy", "prediction")}
    data = {"version": first.pop("version"), "wanted": wanted, **first, **data}
    data["strategy"] = _folded(data["strategy"])
    data["runners_up"] = [{**one, "strategy": _folded(one["strategy"])} for one in data["runners_up"]]
    data["workload"] = plan.workload.model_dump(mode="json", exclude_defaults=True)
    return _text(data, "")


def contradictions(workload: WorkloadProfile, strategy: Strategy) -> Iterator[tuple[Keys, str]]:
    """What cannot be run of `strategy`, with its place in it."""
    end = strategy.stages[-1].end_block
    if end != workload.num_blocks:
        yield ("stages", len(strategy.stages) - 1, "end_block"), f"is {end}, but there are {workload.num_blocks} blocks"
    for span in spans([stage.end_block - stage.first_block for stage in strategy.stages], strategy.chunks):
        degree = strategy.stages[span.stage].tensor_parallel
        for block, _ in workload.part(span.first, span.end):
            if degree > block.largest_tensor_parallel:
                message = f"is {degree}, but at most {block.largest_tensor_parallel} share a {block.name}"
                yield ("stages", span.stage, "tensor_parallel"), message
        if span.first and span.first < workload.num_blocks and span.first not in workload.cuts:
            yield ("stages", span.stage, "first_block"), f"{_begins(strategy, span)}, where the model cannot be cut"
    for number, stage in enumerate(strategy.stages):
        if len(stage.replicas) > 1 and not goes_with(strategy.schedule, stage.zero):
            yield ("stages", number, "zero"), f"is {stage.zero}, but {strategy.schedule} goes with 0 and 1 alone"
    for number, message in disagreements(strategy):
        yield ("stages", number, "replicas"), message


def _begins(strategy: Strategy, span: Span) -> str:
    return f"a chunk begins with block {span.first}" if strategy.chunks > 1 else f"is {span.first}"


class _ReplicaRow(ReplicaShare):
    """`count` equal replicas."""

    count: PositiveInt = 1


class _StageRow(StageStrategy):
    """A stage with equal replicas folded."""

    replicas: tuple[_ReplicaRow, ...]


class _StrategyRow(Frozen):
    """A strategy with equal replicas folded, its parts not yet held against one another."""

    global_batch: PositiveInt
    stages: tuple[_StageRow, ...]
    schedule: Schedule = "none"
    chunks: PositiveInt = 1
    execution: Execution = Execution()

    def strategy(self) -> Strategy:
        """The strategy.

        Raises:
            ValidationError: its parts do not fit together.
        """
        data = self.model_dump()
        for stage in data["stages"]:
            stage["replicas"] = [one for row in stage["replicas"] for one in [row] * row.pop("count")]
        return Strategy.model_validate(data)


class _FoundRow(Found):
    strategy: _StrategyRow  # type: ignore[assignment]


class _PlanRow(PlanFile):
    """The file as it is written."""

    strategy: _StrategyRow  # type: ignore[assignment]
    runners_up: tuple[_FoundRow, ...] = ()

    def plan(self) -> PlanFile:
        fields = {name: getattr(self, name) for name in PlanFile.model_fields}
        fields["strategy"] = self.strategy.strategy()
        fields["wanted"] = self.wanted.model_copy(update={"execution": self.strategy.execution})
        fields["runners_up"] = tuple(
            Found(strategy=one.strategy.strategy(), prediction=one.prediction, worth=one.worth)
            for one in self.runners_up
        )
        return PlanFile(**fields)


_ROWS: Mapping[str, type[Frozen]] = {
    "strategy": _StrategyRow,
    "stages": _StageRow,
    "replicas": _ReplicaRow,
    "execution": Execution,
}
"""What is written below a key."""


def _known_keys(keys: tuple[int | str, ...]) -> list[str]:
    """What may stand beside the last of `keys`."""
    above = [_ROWS[str(key)] for key in keys[:-1] if str(key) in _ROWS]
    return list((above[-1] if above else _PlanRow).model_fields)


def _folded(strategy: dict[str, Any]) -> dict[str, Any]:
    stages = [
        {
            **stage,
            "replicas": [{"count": len(list(equal)), **replica} for replica, equal in groupby(stage["replicas"])],
        }
        for stage in strategy["stages"]
    ]
    return {**strategy, "stages": stages}


def _text(value: Any, indent: str) -> str:
    """`value` as JSON: on one line what fits there, short items of a list side by side."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent) + len(flat) <= LINE_WIDTH:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(f"{inner}{row}" for row in rows) + f"\n{indent}}}"
    rows = [_text(item, inner) for item in value]
    if all(len(row) <= SHORT for row in rows):
        rows = textwrap.wrap(", ".join(row.replace(" ", _GLUE) for row in rows), LINE_WIDTH - len(inner))
        body = "\n".join(f"{inner}{row.replace(_GLUE, ' ')}" for row in rows)
    else:
        body = ",\n".join(f"{inner}{row}" for row in rows)
    return f"[\n{body}\n{indent}]"


def _mistake(document: Document, keys: Keys, message: str) -> Mistake:
    return Mistake(origin=document.origin(keys), keys=keys, message=message)


def _refused(mistakes: list[Mistake]) -> ConfigError:
    ordered = sorted(mistakes, key=lambda one: one.origin.sort_key)
    return ConfigError([str(one) for one in ordered], subject="the plan", next_step=_NEXT_STEP)
