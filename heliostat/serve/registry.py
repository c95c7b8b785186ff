"""The model registry: log a package, make it a version, move the alias; and find a version again by its name.

The version carries where it came from as tags, so the walk back to data, code and plan needs nothing but the registry.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlparse
from urllib.request import url2pathname

from heliostat.errors import UserError
from heliostat.references import did_you_mean
from heliostat.serve.mlflow_client import connect
from heliostat.serve.mlflow_model import PACKAGE, save
from heliostat.values import Frozen

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
"""The alias of a bare model name."""

PREVIOUS = "previous"
"""The alias that a version gets when it loses the one it was registered under."""

TAG = "heliostat."
METRIC_TAG = f"{TAG}metric."


class Provenance(Frozen):
    """Where a model came from."""

    data_version: str
    plan: str
    """The plan as a person would say it."""
    plan_digest: str
    code: str
    """Digest of the fingerprint of the user's code."""
    environment: str
    """Digest of the installed versions."""

    def tags(self) -> dict[str, str]:
        """The tags that say so."""
        return {f"{TAG}{name}": value for name, value in self.model_dump().items()}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """The provenance that `tags` say; empty where they say nothing."""
        return cls.model_validate({name: tags.get(f"{TAG}{name}", "") for name in cls.model_fields})


class ModelVersion(Frozen):
    """One registered version."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    """The run that trained it."""
    source: str
    """URI of the model as MLflow logged it."""
    provenance: Provenance
    metrics: dict[str, float]

    @property
    def id(self) -> str:
        """The name a person uses: `flight-delay@3`."""
        return f"{self.name}@{self.version}"


def register(
    uri: str,
    package: Path,
    *,
    name: str,
    alias: str,
    run_id: str,
    provenance: Provenance,
    metrics: Mapping[str, float],
) -> ModelVersion:
    """Log the package as a model of the run `run_id`, register it as the next version of `name`, and give it `alias`.

    The version that had the alias gets the alias `previous`.

    Raises:
        ServingFailure: the package cannot be loaded, or fails on its own example row.
    """
    client = connect(uri)
    logged = _log_model(client, package, name=name, run_id=run_id, metrics=metrics)
    _ensure_registered(client, name)
    tags = {**provenance.tags(), **{f"{METRIC_TAG}{metric}": repr(value) for metric, value in metrics.items()}}
    created = client.create_model_version(
        name, source=logged.artifact_location, run_id=run_id, tags=tags, model_id=logged.model_id
    )
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is not None:
        client.set_registered_model_alias(name, PREVIOUS, holder)
    client.set_registered_model_alias(name, alias, created.version)
    return resolve(uri, f"{name}/{created.version}")


def resolve(uri: str, reference: str) -> ModelVersion:
    """The version that `reference` names: `model@alias`, `model@3`, `model/3`, `models:/` and one of these, or `model`.

    Raises:
        UserError: there is no such model, alias or version; says which there are.
    """
    client = connect(uri)
    parts = re.fullmatch(r"(?:models:/)?([^@/]+)(?:[@/]([^@/]+))?", reference)
    if parts is None:
        raise UserError(f"{reference!r} does not name a model", next_step="write model, model@alias or model/version")
    name, which = parts.group(1), parts.group(2) or CHAMPION
    aliases: dict[str, str] = _aliases(client, uri, name)
    versions = {str(found.version): found for found in client.search_model_versions(f"name='{name}'")}
    version = which if which.isdigit() else str(aliases.get(which, ""))
    if version not in versions:
        kind = "version" if which.isdigit() else "alias"
        raise UserError(
            f"model {name!r} has no {kind} {which!r}{did_you_mean(which, aliases)}",
            where=uri,
            got=f"aliases {', '.join(aliases) or 'none'}; versions {', '.join(sorted(versions, key=int)) or 'none'}",
            next_step=f"name one of these: {name}@alias or {name}/version",
        )
    return _model_version(versions[version], aliases)


@contextmanager
def fetched(uri: str, version: ModelVersion) -> Iterator[Path]:
    """The package of a version as a local directory, downloaded for as long as it is used unless it is here anyway."""
    address = urlparse(version.source)
    here = Path(url2pathname(address.path)) / PACKAGE
    if address.scheme in ("", "file") and here.is_dir():
        yield here
        return
    connect(uri)
    from mlflow.artifacts import download_artifacts

    folder = tempfile.mkdtemp(prefix="heliostat-model-")
    try:
        yield Path(download_artifacts(artifact_uri=f"{version.source}/{PACKAGE}", dst_path=folder, tracking_uri=uri))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log_model(client: "MlflowClient", package: Path, *, name: str, run_id: str, metrics: Mapping[str, float]) -> Any:
    """Log the package as an MLflow model with signature and example; returns MLflow's LoggedModel."""
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model", package, model_id=logged.model_id, run_id=run_id)
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
    client.finalize_logged_model(logged.model_id, "READY")
    for metric, value in metrics.items():
        client.log_metric(run_id, metric, value, model_id=logged.model_id)
    return logged


def _ensure_registered(client: "MlflowClient", name: str) -> None:
    if name not in _names(client):
        client.create_registered_model(name)


def _names(client: "MlflowClient") -> list[str]:
    return [model.name for model in client.search_registered_models(max_results=1000)]


def _aliases(client: "MlflowClient", uri: str, name: str) -> dict[str, str]:
    names = _names(client)
    if name not in names:
        raise UserError(
            f"there is no model {name!r}{did_you_mean(name, names)}",
            where=uri,
            got=f"models {', '.join(names) or 'none'}",
            causes=("nothing has been registered under this name here", "tracking.uri names another store"),
            next_step="heliostat run registers a model; or name one that is there",
        )
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _model_version(found: Any, aliases: Mapping[str, str]) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == str(found.version))),
        run_id=found.run_id,
        source=found.source,
        provenance=Provenance.from_tags(found.tags),
        metrics={
            tag.removeprefix(METRIC_TAG): float(value)
            for tag, value in found.tags.items()
            if tag.startswith(METRIC_TAG)
        },
    )
