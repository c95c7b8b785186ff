"""The main job as a pipeline: data -> plan -> train -> (tune) -> register -> serve -> smoke; and its shorter forms."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Literal

from heliostat.experiment.config import Experiment
from heliostat.experiment.step import Step, StepResult, nothing_missing
from heliostat.experiment.steps import data, plan, register, serve, smoke, train, tune, verify

Goal = Literal["serve", "train", "verify"]
"""How far a run goes: to a model that is served, or trained; or to a plan that was checked and trained nothing."""


def main_job(
    experiment: Experiment, *, cluster_facts: Mapping[str, str], registry_uri: str, goal: Goal = "serve"
) -> tuple[Step, ...]:
    """Build the steps of `experiment`; each is handed exactly the configuration it reads.

    Args:
        experiment: the valid experiment file.
        cluster_facts: what a plan depends on besides the configuration.
        registry_uri: where a registered model can be looked up before any service is started.
        goal: how far it goes.
    """
    config = experiment.config
    prepare, task = config.data.prepare, config.train.task
    features = () if config.data.features is None else (config.data.features,)
    search = ("tune",) if config.tune.trials else ()

    def step(
        module: ModuleType,
        *,
        after: Sequence[str] = (),
        references: Sequence[str] = (),
        facts: Mapping[str, str] | None = None,
        still_there: Callable[[StepResult], str | None] = nothing_missing,
    ) -> Step:
        return Step(
            name=module.__name__.rpartition(".")[2],
            run=module.run,
            options=_slice(experiment, module.READS),
            origins=experiment.origins,
            after=tuple(after),
            references=tuple(references),
            facts=facts or {},
            still_there=still_there,
        )

    steps = (
        step(data, references=(prepare, *features), still_there=data.missing),
        step(plan, after=("data",), references=(task,), facts={**cluster_facts, **plan.facts_of(config.plan.file)}),
        step(verify, after=("data", "plan"), references=(task,)),
        step(train, after=("data", "plan"), references=(task,), still_there=train.missing),
        step(tune, after=("data", "plan", "train"), references=(task,), still_there=tune.missing),
        step(
            register,
            after=("data", "plan", "train", *search),
            references=(task, *features),
            still_there=partial(register.missing, registry_uri),
        ),
        step(serve, after=("register",), references=(task, *features)),
        step(smoke, after=("data", "register", "serve"), references=(task, *features)),
    )
    wanted = {
        "serve": ("data", "plan", "train", *search, "register", "serve", "smoke"),
        "train": ("data", "plan", "train"),
        "verify": ("data", "plan", "verify"),
    }[goal]
    return tuple(one for one in steps if one.name in wanted)


def _slice(experiment: Experiment, paths: Sequence[str]) -> dict[str, Any]:
    """The values at dotted `paths`, under these paths, as the file's own words."""
    values = experiment.config.model_dump(mode="json", by_alias=True)
    return {path: _value(values, path.split(".")) for path in paths}


def _value(values: Any, keys: list[str]) -> Any:
    for key in keys:
        values = values[key]
    return values
