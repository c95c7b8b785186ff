"""Step `data`: run the user's preparation on Ray Data and commit a dataset version."""

from pathlib import Path
from typing import Any

from heliostat.data.prepare import Prepared
from heliostat.data.features import FeatureSet
from heliostat.data.versions import DatasetVersion, commit, exists
from heliostat.errors import DataError
from heliostat.experiment.pipeline import Artifact, StepContext, StepResult
from heliostat.references import resolve

READS = ("name", "data")


def run(context: StepContext) -> StepResult:
    """Prepare, compute the features, fit the encoder, commit."""
    options: dict[str, Any] = context.options["data"]
    features = resolve(options["features"])
    if not isinstance(features, FeatureSet):
        raise DataError("data.features does not name a FeatureSet", where=options["features"], got=repr(features))
    context.progress(0, 2, "preparing")
    prepared = resolve(options["prepare"])(options["options"])
    if not isinstance(prepared, Prepared):
        raise DataError("data.prepare did not return Prepared", where=options["prepare"], got=repr(prepared))
    context.progress(1, 2, "computing features and committing")
    name = str(context.options["name"])
    version = commit(
        prepared, uri=str(Path(context.extra["store"]) / "data" / name), name=name, label=options["label"], features=features
    )
    rows = {f"rows_{split}": float(count) for split, count in version.num_rows.items()}
    dropped = {f"dropped_{reason}": float(count) for reason, count in version.dropped.items()}
    return StepResult(
        outputs={"version": version.model_dump(mode="json")},
        artifacts=(Artifact(kind="dataset", uri=version.uri, digest=version.id),),
        metrics={**rows, **dropped},
    )


def version_of(result: StepResult) -> DatasetVersion:
    """The dataset version in a result of this step."""
    return DatasetVersion.model_validate(result.outputs["version"])


def missing(result: StepResult) -> str | None:
    """What is missing of the dataset version; None when it can be read."""
    version = version_of(result)
    return None if exists(version) else f"dataset {version.id} in {version.uri}"
