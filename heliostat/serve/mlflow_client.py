"""The one place that imports MLflow: quiet, offline apart from its own server, and without global state.

MLflow's `MlflowClient` takes its address as an argument, so two stores can be used in one process and nothing depends
on which run happens to be active. Importing MLflow costs about two seconds, hence only when a client is made.
"""

import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The default of 7 doubles its pause each time: four minutes until a dead server is reported.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How MLflow behaves here unless the environment says otherwise; it reads most of them when it is imported."""


def connect(uri: str) -> "MlflowClient":
    """A client of the tracking store and model registry at `uri` (`sqlite:///...`, `http://...`)."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow's own imports deprecate is not ours to mend
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)
