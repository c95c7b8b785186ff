"""Step `smoke`: the endpoint answers what the model says offline, and the model is judged beside honest baselines.

Offline predictions take the stored features of the dataset version; the endpoint gets the raw rows and computes the
features itself. That the two agree shows that training and serving see the same values. A model that continues texts
gets the same prompts offline and over HTTP, whole and as a stream, and must say the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heliostat.data.columns import Kind
from heliostat.data.features import FeatureSet
from heliostat.data.versions import DatasetVersion, load_columns
from heliostat.errors import ServingFailure
from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import data, register, serve
from heliostat.serve.endpoint import Endpoint
from heliostat.train.evaluate import predict, restore
from heliostat.train.task import make_task
from heliostat.train.text import Sampling, TextTask, text_of

READS = ("name", "seed", "serve", "smoke", "data.features", "train.task")
ROWS_PER_REQUEST = 50
ROWS_PER_PASS = 128
"""Rows that are predicted at once: of a language model, each has as many answers as tokens."""
MAX_TOKENS = 32
"""Length of the texts that are compared."""
SAMPLINGS = (Sampling(max_tokens=MAX_TOKENS), Sampling(max_tokens=MAX_TOKENS, temperature=0.8, top_k=40, seed=7))
"""Prompts are answered with each in turn: the likeliest text, and a drawn one."""


def run(context: StepContext) -> StepResult:
    """Compare HTTP with offline on test rows, and the test metrics with the baselines'."""
    options = context.options
    version = data.version_of(context.inputs["data"])
    endpoint = serve.endpoint_of(context.inputs["serve"])
    if not endpoint.is_up():  # served by an earlier run that has ended
        registered = register.model_of(context.inputs["register"])
        endpoint = serve.deploy_version(registered, options, context.extra["tracking_uri"])
    context.progress(0, 3, "predicting the test split offline")
    chosen = register.chosen_of(context.inputs["register"])
    task = make_task(options["train.task"], version, chosen.params)
    model = restore(task, chosen.checkpoint)
    test = task.load("test")
    offline = predict(task, model, test, micro_batch=ROWS_PER_PASS)
    context.progress(1, 3, "asking the endpoint")
    if isinstance(task, TextTask):
        prompts = task.prompts(test, options["smoke"]["rows"])
        compared = compare_texts(endpoint, prompts, partial(text_of, task, model))
    else:
        features = data.feature_set(options["data.features"])
        compared = compare_rows(endpoint, version, features, offline, options)
    context.progress(2, 3, "fitting the baselines")
    answers = {f"served model ({chosen.source})": offline, **task.baselines(task.load("train"), test)}
    table = {name: task.metrics(predictions, test["label"]) for name, predictions in answers.items()}
    return StepResult(
        outputs={"test_metrics": table, "endpoint": endpoint},
        metrics={**compared, **{f"test_{name}": value for name, value in next(iter(table.values())).items()}},
    )


def test_metrics_of(result: StepResult) -> dict[str, dict[str, float]]:
    """Model or baseline -> its metrics on the test split, in a result of this step."""
    return dict(result.outputs["test_metrics"])


def compare_rows(
    endpoint: Endpoint,
    version: DatasetVersion,
    features: FeatureSet,
    offline: NDArray[Any],
    options: Mapping[str, Any],
) -> dict[str, float]:
    """Send test rows, and say how many there were and how far the answers are from the `offline` ones.

    Raises:
        ServingFailure: further than `smoke.tolerance` allows; or no answer.
    """
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
    return {"rows_compared": float(len(rows)), "largest_difference": difference}


def compare_texts(
    endpoint: Endpoint, prompts: Sequence[str], offline: Callable[[str, Sampling], str]
) -> dict[str, float]:
    """Send prompts, and say how many there were.

    Raises:
        ServingFailure: a text is another one than `offline`; or no answer.
    """
    for number, prompt in enumerate(prompts):
        sampling = SAMPLINGS[number % len(SAMPLINGS)]
        expected = offline(prompt, sampling)
        whole = endpoint.generate(prompt, **sampling.model_dump())
        streamed = "".join(endpoint.stream(prompt, **sampling.model_dump()))
        if (whole, streamed) != (expected, expected):
            raise ServingFailure(
                "the endpoint does not say what the model says offline",
                where=f"{endpoint.url}{endpoint.path}, prompt {prompt!r}",
                got=f"{whole!r}, and in pieces {streamed!r}; offline {expected!r}",
                causes=("what is generated depends on more than its arguments", "another version is deployed"),
                next_step="heliostat lineage, and compare the data version with the endpoint's /healthz",
            )
    return {"prompts_compared": float(len(prompts))}


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
