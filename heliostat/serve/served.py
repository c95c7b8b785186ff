"""Any packaged model, whatever it answers."""

from pathlib import Path

from fastapi import FastAPI

from heliostat.serve.app import build_app
from heliostat.serve.loading import read_spec
from heliostat.serve.model import ServedModel
from heliostat.serve.text_app import build_text_app
from heliostat.serve.text_model import ServedText

Served = ServedModel | ServedText


def load(path: Path, *, dedicated: bool = False) -> Served:
    """The model of the package at `path`: with features it answers rows, without it continues texts.

    Raises:
        ServingFailure: there is no package, or its parts do not fit together.
        ReferenceNotFound: its code does not import.
    """
    kind = ServedText if read_spec(path).features is None else ServedModel
    return kind.load(path, dedicated=dedicated)


def app_of(model: Served, *, name: str, version: int) -> FastAPI:
    """The application that serves `model` as version `version` of `name`."""
    if isinstance(model, ServedText):
        return build_text_app(model, name=name, version=version)
    return build_app(model, name=name, version=version)
