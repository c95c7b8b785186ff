"""A package as an MLflow model, with a signature and an example, for everybody who knows MLflow and not us."""

import shutil
import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.data.columns import InputColumn
from heliostat.serve.served import load
from heliostat.serve.text_model import ServedText

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

PACKAGE = "artifacts/package"
"""Where the package is inside the MLflow model; MLflow keeps the last part of an artifact's path."""

REQUIREMENTS = ("heliostat", "mlflow", "numpy", "pandas", "pydantic", "torch")
"""What a model needs to be loaded; MLflow would take seconds to find out."""


def save(target: Path, package: Path, *, model_id: str, run_id: str) -> None:
    """Write the MLflow model `model_id` of the run `run_id` to the directory `target`.

    A copy of the package is left beside it. MLflow loads it once to check it against its example.

    Raises:
        ServingFailure: the package cannot be loaded.
    """
    model = load(package)
    inputs, answer = model.inputs, "string" if isinstance(model, ServedText) else "double"
    copy = target.parent / Path(PACKAGE).name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow 3.17 uses what pandas 3.1 deprecates
        import mlflow.pyfunc
        import pandas as pd
        from mlflow.models import Model

        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(Path(__file__).with_name("pyfunc_script.py")),
            artifacts={"package": str(copy)},
            signature=_signature(inputs, answer),
            input_example=pd.DataFrame([{column.name: _example(column) for column in inputs}]),
            pip_requirements=[f"{library}=={installed(library).partition('+')[0]}" for library in REQUIREMENTS],
            mlflow_model=Model(model_id=model_id, run_id=run_id),
        )


def _signature(inputs: tuple[InputColumn, ...], answer: str) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = [ColSpec(_mlflow_type(column), column.name, required=not column.nullable) for column in inputs]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec(answer)]))


def _mlflow_type(column: InputColumn) -> str:
    """A nullable integer is a double: that is how a data frame holds integers of which some are missing."""
    if column.kind == "integer" and not column.nullable:
        return "long"
    return "string" if column.kind == "string" else "double"


def _example(column: InputColumn) -> Any:
    """The column's example in the type of the signature; where it has none, an empty string or the least it may be."""
    if column.kind == "string":
        return "" if column.example is None else str(column.example)
    value = (column.minimum or 0.0) if column.example is None else float(column.example)
    return int(value) if _mlflow_type(column) == "long" else value
