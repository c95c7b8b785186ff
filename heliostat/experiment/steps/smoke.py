"""Step `smoke`: the endpoint answers what the model says offline, and the model beats two honest baselines.

Offline predictions take the stored features of the dataset version; the endpoint gets the raw rows and computes the
features itself. That the two agree shows that training and serving see the same values.
"""

import math

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Kind
from heliostat.data.features import FeatureSet
from heliostat.data.versions import DatasetVersion, load_columns
from heliostat.errors import ServingFailure
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import data, register, serve
from heliostat.train.baselines import class_prior, logistic_regression
from heliostat.train.evaluate import predict, restore
from heliostat.train.task import make_task

READS = ("name", "seed", "serve", "smoke", "data.features", "train.task")
ROWS_PER_REQUEST = 50


def run(context: StepContext) -> StepResult:
    """Compare HTTP with offline on test rows, and the test metrics with the baselines'."""
    options = context.options
    version = data.version_of(context.inputs["data"])
    features = data.feature_set(options["data.features"])
    endpoint = serve.endpoint_of(context.inputs["serve"])
    if not endpoint.is_up():  # served by an earlier run that has ended
        model = register.model_of(context.inputs["register"])
        endpoint = serve.deploy_version(model, options, context.extra["tracking_uri"])
    context.progress(0, 3, "predicting the test split offline")
    chosen = register.chosen_of(context.inputs["register"])
    task = make_task(options["train.task"], version, chosen.params)
    test = task.load("test")
    offline = predict(task, restore(task, chosen.checkpoint), test)
    context.progress(1, 3, "asking the endpoint")
    rows = _pick(options["smoke"]["rows"], version.num_rows["test"], options["seed"])
    online = np.array(endpoint.ask(raw_rows(version, features, rows), rows_per_request=ROWS_PER_REQUEST))
    difference = float(np.max(np.abs(online - offline[rows])))
    if difference > options["smoke"]["tolerance"]:
        raise ServingFailure(
            "the endpoint does not answer what the model says offline",
            where=endpoint.url,
            got=f"a difference of {difference:.3g} in {len(rows)} rows; {options['smoke']['tolerance']:.3g} is allowed",
            causes=("the feature code depends on other rows of a batch", "the deployed version is another one"),
            next_step="heliostat lineage, and compare the data version with the endpoint's /healthz",
        )
    context.progress(2, 3, "fitting the baselines")
    train = task.load("train")
    answers = {
        f"served model ({chosen.source})": offline,
        "logistic regression": logistic_regression(train, test, version.encoder.cardinalities),
        "class prior": class_prior(train, len(offline)),
    }
    table = {name: task.metrics(predictions, test["label"]) for name, predictions in answers.items()}
    return StepResult(
        outputs={"test_metrics": table, "endpoint": endpoint},
        metrics={
            "rows_compared": float(len(rows)),
            "largest_difference": difference,
            **{f"test_{name}": value for name, value in next(iter(table.values())).items()},
        },
    )


def test_metrics_of(result: StepResult) -> dict[str, dict[str, float]]:
    """Model or baseline -> its metrics on the test split, in a result of this step."""
    return dict(result.outputs["test_metrics"])


def _pick(count: int, num_rows: int, seed: int) -> NDArray[np.int64]:
    """Which test rows to send: `count` different ones, in the order of the split."""
    chosen = np.random.default_rng(seed).choice(num_rows, size=min(count, num_rows), replace=False)
    return np.sort(chosen)


def raw_rows(version: DatasetVersion, features: FeatureSet, rows: NDArray[np.int64]) -> list[dict[str, object]]:
    """Rows of the test split as a client would send them: the raw inputs as JSON values, null where one is missing."""
    columns = load_columns(version, "test", [column.name for column in features.inputs])
    kinds = {column.name: column.kind for column in features.inputs}
    return [{name: _json_value(columns[name][row], kind) for name, kind in kinds.items()} for row in rows]


def _json_value(value: object, kind: Kind) -> object:
    if value is None or kind == "string":
        return value
    number = float(value)  # type: ignore[arg-type]  # a column of numbers
    if math.isnan(number):
        return None
    return int(number) if kind == "integer" else number
