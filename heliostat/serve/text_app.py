"""The HTTP face of a model that continues texts: POST /generate, GET /healthz.

    POST /generate {"prompt": "ROMEO:", "max_tokens": 50, "temperature": 0.8, "top_k": 40, "seed": 1, "stream": true}

The answer is JSON, or with `stream` server-sent events: each has a piece of the text as it comes, the last one, `end`,
the name of the model. What is wrong with a request is answered with 400, each mistake with what and where.
"""

import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from heliostat.errors import UserError
from heliostat.serve.app import Failure, Health, describe
from heliostat.serve.text_model import ServedText, TextRequest

logger = logging.getLogger(__name__)

PATH = "/generate"


class GenerateRequest(TextRequest):
    """The body of POST /generate."""

    stream: bool = False
    """Send the text in pieces as they come."""


class Generated(BaseModel):
    """The answer to POST /generate: the text that follows the prompt."""

    text: str
    model: str = Field(examples=["shakespeare@1"])


class BadRequest(BaseModel):
    """One thing that is wrong with a request."""

    what: str
    where: str = Field(examples=["temperature"])
    got: Any = None


class Refusal(BaseModel):
    """The answer to a request that cannot be answered."""

    detail: list[BadRequest]


def build_text_app(model: ServedText, *, name: str, version: int) -> FastAPI:
    """The application that serves `model` as version `version` of `name`.

    Pieces are computed on threads, one text on each, so that texts of several clients grow side by side.
    """
    app = FastAPI(title=name, version=str(version), description=describe(model.spec), redoc_url=None)
    app.add_exception_handler(RequestValidationError, _refuse)
    title = f"{name}@{version}"

    @app.get("/healthz")
    async def healthz() -> Health:
        """Say which model answers here."""
        return Health(model=name, version=version, data=model.spec.data.id, path=PATH)

    @app.post(
        PATH,
        response_model=Generated,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "The text, whole or in pieces."},
            400: {"model": Refusal},
            500: {"model": Failure},
        },
    )
    async def generate(body: GenerateRequest) -> Generated | StreamingResponse | JSONResponse:
        """Go on from a prompt."""
        try:
            pieces = model.generate(body.prompt, body)
            first = await run_in_threadpool(list, _first(pieces))
            if body.stream:
                return StreamingResponse(_events(chain(first, pieces), title), media_type="text/event-stream")
            return Generated(text=await run_in_threadpool("".join, chain(first, pieces)), model=title)
        except UserError as error:
            return _refusal([BadRequest(what=error.what, where=error.where or "body", got=error.got)])
        except Exception as error:  # noqa: BLE001  # whatever the user's code raises
            return JSONResponse(_failure(title, error).model_dump(), status_code=500)

    return app


def _first(pieces: Iterator[str]) -> Iterator[str]:
    """The first piece, if there is one: with it comes what the task has against the prompt."""
    for piece in pieces:
        yield piece
        return


def _events(pieces: Iterator[str], title: str) -> Iterator[str]:
    try:
        for piece in pieces:
            yield f"data: {json.dumps({'text': piece})}\n\n"
        yield f"event: end\ndata: {json.dumps({'model': title})}\n\n"
    except Exception as error:  # noqa: BLE001  # the answer has begun: it can only end with what happened
        yield f"event: error\ndata: {_failure(title, error).model_dump_json()}\n\n"


def _failure(title: str, error: Exception) -> Failure:
    """What the client is told; the log has the error under the same id."""
    error_id = uuid.uuid4().hex[:12]
    logger.error("error %s: %s failed", error_id, title, exc_info=error)
    return Failure(detail="the model failed; its log has the reason", error_id=error_id)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        BadRequest(
            what=mistake["msg"],
            where=".".join(part for part in mistake["loc"][1:] if isinstance(part, str)) or "body",
            got=_short(mistake.get("input")),
        )
        for mistake in error.errors()
    ]
    return _refusal(mistakes)


def _refusal(mistakes: Sequence[BadRequest]) -> JSONResponse:
    return JSONResponse(Refusal(detail=list(mistakes)).model_dump(), status_code=400)


def _short(value: object) -> object:
    """A value as it can be sent back: numbers that JSON lacks, and what is long, as the beginning of their text."""
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)[:80]
