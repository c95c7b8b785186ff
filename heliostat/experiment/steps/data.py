"""Step `data`: run the user's preparation on Ray Data and commit a dataset version."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heliostat.data import versions
from heliostat.data.features import FeatureSet
from heliostat.data.prepare import Prepared, run_prepare
from heliostat.data.versions import DatasetVersion, commit
from heliostat.errors import DataError
from heliostat.experiment.step import Artifact, StepContext, StepResult
from heliostat.references import resolve

READS = ("name", "data")


def run(context: StepContext) -> StepResult:
    """Prepare, compute the features, fit the encoder, commit."""
    options: dict[str, Any] = context.options["data"]
    features = None if options["features"] is None else feature_set(options["features"])
    context.progress(0, 2, "preparing")
    prepared = run_prepare(prepare_function(options["prepare"]), options["options"])
    context.progress(1, 2, "computing features and committing" if features else "committing")
    name = str(context.options["name"])
    version = commit(
        prepared,
        uri=str(Path(context.extra["store"]) / "data" / name),
        name=name,
        label=options["label"],
        features=features,
    )
    rows = {f"rows_{split}": float(count) for split, count in version.num_rows.items()}
    dropped = {f"dropped_{reason}": float(count) for reason, count in version.dropped.items()}
    return StepResult(
        outputs={"version": version},
        artifacts=(Artifact(kind="dataset", uri=version.uri, digest=version.id),),
        metrics={**rows, **dropped},
    )


def feature_set(reference: str) -> FeatureSet:
    """The FeatureSet that `reference` names.

    Raises:
        DataError: it names something else.

    """
    found = resolve(reference)
    if not isinstance(found, FeatureSet):
        raise DataError("data.features does not name a FeatureSet", where=reference, got=repr(found))
    return found


def prepare_function(reference: str) -> Callable[[Mapping[str, Any]], Prepared]:
    """The function that `reference` names.

    Raises:
        DataError: it names something that cannot be called.

    """
    found = resolve(reference)
    if not callable(found):
        raise DataError("data.prepare does not name a function", where=reference, got=repr(found))
    return found


def version_of(result: StepResult) -> DatasetVersion:
    """The dataset version in a result of this step."""
    return DatasetVersion.model_validate(result.outputs["version"])


def missing(result: StepResult) -> str | None:
    """What is missing of the dataset version; None when it can be read."""
    version = version_of(result)
    gone = versions.missing(version)
    return None if gone is None else f"dataset {version.id}: {gone}"
