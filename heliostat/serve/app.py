"""The HTTP face of a model: POST /predict, GET /healthz, and an OpenAPI schema generated from its feature set.

A row is checked field by field before the model sees it, and a bad one is answered with 422 naming the field. Requests
run one at a time on the event loop: a small model answers in less time than a thread takes to wake.
"""

import logging
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

from heliostat.data.columns import InputColumn
from heliostat.serve.loading import PackagedModel
from heliostat.serve.model import Prediction, ServedModel

logger = logging.getLogger(__name__)

PATH = "/predict"
MAX_ROWS = 10_000
"""Rows in one request; more would hold up everybody else's answer for seconds."""


class Predictions(BaseModel):
    """The answer to POST /predict, in the order of the rows."""

    predictions: list[Prediction]
    model: str = Field(examples=["flight-delay@3"])


class Health(BaseModel):
    """The answer to GET /healthz."""

    status: str = "ok"
    model: str
    version: int
    data: str = Field(description="the dataset version it was trained on", examples=["flights@7"])
    path: str = Field(description="where it answers", examples=["/predict"])


class Failure(BaseModel):
    """The answer when the model itself fails; the log has the rest under the same id."""

    detail: str
    error_id: str


def build_app(model: ServedModel, *, name: str, version: int) -> FastAPI:
    """The application that serves `model` as version `version` of `name`.

    /docs draws its page with scripts from a public address; without a network, /openapi.json still has the schema.
    """
    app = FastAPI(title=name, version=str(version), description=describe(model.spec), redoc_url=None)
    app.add_exception_handler(RequestValidationError, _refuse)
    row = row_model(model.features.inputs)
    row_or_rows: Any = Annotated[
        Annotated[row, Tag("row")] | Annotated[list[row], Field(min_length=1, max_length=MAX_ROWS), Tag("rows")],  # type: ignore[valid-type]
        Discriminator(lambda body: "rows" if isinstance(body, list) else "row"),
        Body(openapi_examples=_examples(model.features.inputs)),
    ]

    @app.get("/healthz")
    async def healthz() -> Health:
        """Say which model answers here."""
        return Health(model=name, version=version, data=model.spec.data.id, path=PATH)

    @app.post(PATH, response_model=Predictions, responses={500: {"model": Failure}})
    async def predict(body: row_or_rows) -> Predictions | JSONResponse:
        """Answer one row or a list of rows."""
        rows = [row.model_dump(by_alias=True) for row in (body if isinstance(body, list) else [body])]
        try:
            return Predictions(predictions=model.predict(rows), model=f"{name}@{version}")
        except Exception:
            error_id = uuid.uuid4().hex[:12]
            logger.exception("error %s: %s@%s failed on %d rows", error_id, name, version, len(rows))
            failure = Failure(detail="the model failed; its log has the reason", error_id=error_id)
            return JSONResponse(failure.model_dump(), status_code=500)

    return app


def row_model(inputs: Sequence[InputColumn]) -> type[BaseModel]:
    """The class that checks one row: types, nulls, limits; unknown fields refused.

    Fields are numbered and clients know them by their alias, because a column may be called `copy` or `dep time`.
    """
    fields: dict[str, Any] = {f"field_{position}": _field(column) for position, column in enumerate(inputs)}
    return create_model("Row", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _field(column: InputColumn) -> tuple[Any, Any]:
    kind = _kind(column)
    return (
        kind | None if column.nullable else kind,
        Field(
            default=None if column.nullable else ...,
            alias=column.name,
            description=column.description or None,
            examples=None if column.example is None else [_example(column)],
        ),
    )


def _kind(column: InputColumn) -> Any:
    limits: dict[str, Any] = {"ge": column.minimum, "le": column.maximum}
    if column.kind == "string":
        return str
    if column.kind == "integer":
        return Annotated[int, Field(**limits), BeforeValidator(_whole)]
    return Annotated[float, Field(**limits, allow_inf_nan=False)]


def _whole(value: object) -> object:
    """3.0 is an integer in JSON Schema, and what a data frame with missing values sends."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _example(column: InputColumn) -> str | float | None:
    return _whole(column.example) if column.kind == "integer" else column.example  # type: ignore[return-value]


def _examples(inputs: Sequence[InputColumn]) -> dict[str, Any]:
    row = {column.name: _example(column) for column in inputs}
    return {"one row": {"value": row}, "two rows": {"value": [row, row]}}


def describe(spec: PackagedModel) -> str:
    """A packaged model in a line, for the page of its endpoint."""
    return f"Trained on dataset version {spec.data.id} with the task {spec.task}."


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """422 with place, message and kind of every mistake; the values stay out: NaN, for one, cannot be sent as JSON."""
    assert isinstance(error, RequestValidationError)
    mistakes = [{"loc": mistake["loc"], "msg": mistake["msg"], "type": mistake["type"]} for mistake in error.errors()]
    return JSONResponse({"detail": mistakes}, status_code=422)
