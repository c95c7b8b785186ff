"""The model as MLflow loads it: `mlflow.pyfunc.load_model("models:/name@champion").predict(data_frame)`.

MLflow copies this file into the model it logs and runs it on loading ("models from code"), so it stays a shell around
`served.load`, and is never imported by ours.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from heliostat.serve.model import Prediction
from heliostat.serve.served import load


class PackagedPythonModel(PythonModel):  # type: ignore[misc]  # MLflow's classes are Any to the type checker
    """A package behind MLflow's interface: a data frame of input columns in, one prediction or text per row out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package that was logged as the artifact `package`."""
        self.model = load(Path(context.artifacts["package"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> list[Prediction] | list[str]:
        """Answer every row; a missing value is a null."""
        present = model_input.astype(object).where(model_input.notna(), None)
        return self.model.predict(present.to_dict("records"))


set_model(PackagedPythonModel())
