"""What is written about a run: one parent run per experiment, one child run per step, metrics in batches.

A `Tracker` is its store's address and nothing else, so a worker needs only a string to write to the same run, and no
call depends on which run MLflow thinks is active.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from heliostat.experiment.tracking_store import artifact_root
from heliostat.serve.mlflow_client import connect
from heliostat.values import plain

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's pages nest a run under another."""

STEP = "heliostat.step"
"""The tag that names a child run's step."""

PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
"""Limits of MLflow's log_batch."""

Point = tuple[int, float]
"""A metric's value at a step: (step, value)."""


class Tracker:
    """Writes runs to the tracking store at `uri`, which must exist (`tracking_store.initialise` or a server)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __reduce__(self) -> tuple[type["Tracker"], tuple[str]]:
        return type(self), (self.uri,)

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's own client, for what is not here."""
        return connect(self.uri)

    def open_run(self, experiment: str, name: str, *, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open the parent run of one experiment and return its id.

        The config becomes parameters (`train.lr`), and as it is the artifact `config.json`.
        """
        run_id = self._create_run(self._experiment_id(experiment), name, tags)
        self.log_params(run_id, config)
        self.log_json(run_id, config, "config.json")
        return run_id

    def open_step(self, parent: str, step: str, *, tags: Mapping[str, str]) -> str:
        """Open the child run of a step under the run `parent` and return its id."""
        experiment_id = self.client.get_run(parent).info.experiment_id
        return self._create_run(experiment_id, step, {**tags, PARENT: parent, STEP: step})

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Record parameters; nested ones get dotted names."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in flatten(params)]
        for part in _parts(entries, PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=part)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record one value of each metric."""
        self.log_series(run_id, {name: [(step, value)] for name, value in metrics.items()})

    def log_series(self, run_id: str, series: Mapping[str, Sequence[Point]]) -> None:
        """Record many values of each metric: 1000 cost about 0.1 s."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        entries = [
            Metric(name, float(value), now_ms, step) for name, points in series.items() for step, value in points
        ]
        for part in _parts(entries, METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=part)

    def log_json(self, run_id: str, value: object, file: str) -> None:
        """Keep `value` as the run's artifact `file`."""
        self.client.log_dict(run_id, plain(value), file)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run."""
        for name, value in tags.items():
            self.client.set_tag(run_id, name, value)

    def close(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run."""
        self.client.set_terminated(run_id, status)

    def close_family(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run, and as killed those of its children that did not end themselves."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        still_running = f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"
        for child in self.client.search_runs([experiment_id], filter_string=still_running):
            self.close(child.info.run_id, "KILLED")
        self.close(run_id, status)

    def _create_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self.client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def _experiment_id(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        root = artifact_root(self.uri)
        return str(self.client.create_experiment(name, artifact_location=root and f"{root}/{name}"))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names: `{"train": {"lr": 1}}` gives `("train.lr", 1)`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parts(entries: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
