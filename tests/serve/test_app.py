"""The HTTP application in process: validation, answers, errors, and the published contract."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from heliostat.data.columns import InputColumn
from heliostat.serve import app as app_module
from heliostat.serve.app import build_app, row_model
from heliostat.serve.model import ServedModel
from tests.serve.conftest import MakePackage, Rows


class Client:
    """Calls an application in process."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._send("GET", path))

    def post(self, path: str, **body: Any) -> httpx.Response:
        return asyncio.run(self._send("POST", path, **body))

    async def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.request(method, path, **body)


@pytest.fixture
def model(make_package: MakePackage) -> ServedModel:
    return ServedModel.load(make_package())


@pytest.fixture
def client(model: ServedModel) -> Client:
    return Client(build_app(model, name="flight-delay", version=3))


def mistakes(client: Client, body: Any) -> list[tuple[str, str]]:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    return [(".".join(map(str, mistake["loc"])), mistake["msg"]) for mistake in answer.json()["detail"]]


def test_one_row_and_many(client: Client, model: ServedModel, rows: Rows) -> None:
    answer = client.post("/predict", json=rows)
    assert answer.status_code == 200
    assert answer.json() == {"predictions": model.predict(rows), "model": "flight-delay@3"}
    assert client.post("/predict", json=rows[1]).json()["predictions"] == model.predict(rows[1:2])


def test_classes_per_row(make_package: MakePackage, rows: Rows) -> None:
    model = ServedModel.load(make_package({"answer": "classes"}))
    client = Client(build_app(model, name="m", version=1))
    assert client.post("/predict", json=rows).json()["predictions"] == model.predict(rows)


def test_health(client: Client) -> None:
    assert client.get("/healthz").json() == {
        "status": "ok",
        "model": "flight-delay",
        "version": 3,
        "data": "flights@7",
        "path": "/predict",
    }


GOOD = {"carrier": "UA", "dep time": 1715, "distance": 1400.5}


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"carrier": None}, "carrier", "string"),
        ({"carrier": 7}, "carrier", "string"),
        ({"dep time": 2400}, "dep time", "less than or equal to 2359"),
        ({"dep time": -1}, "dep time", "greater than or equal to 0"),
        ({"dep time": 17.5}, "dep time", "integer"),
        ({"dep time": "1715"}, "dep time", "integer"),
        ({"dep time": True}, "dep time", "integer"),
        ({"distance": "far"}, "distance", "number"),
        ({"distance": None}, "distance", "number"),
        ({"seats": 0}, "seats", "greater than or equal to 1"),
        ({"seats": "many"}, "seats", "integer"),
        ({"speed": 1}, "speed", "Extra inputs are not permitted"),
    ],
)
def test_a_bad_field_is_named(client: Client, change: dict[str, object], where: str, what: str) -> None:
    ((place, message),) = mistakes(client, {**GOOD, **change})
    assert place == f"body.row.{where}"
    assert what in message
    ((place, _),) = mistakes(client, [GOOD, {**GOOD, **change}])
    assert place == f"body.rows.1.{where}"


def test_a_missing_field_is_named(client: Client) -> None:
    row = {name: value for name, value in GOOD.items() if name != "distance"}
    assert mistakes(client, row) == [("body.row.distance", "Field required")]


def test_all_mistakes_at_once(client: Client) -> None:
    found = mistakes(client, [{**GOOD, "carrier": 1, "distance": "x"}, GOOD, {**GOOD, "dep time": 9999}])
    assert [place for place, _ in found] == ["body.rows.0.carrier", "body.rows.0.distance", "body.rows.2.dep time"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(client: Client, value: str) -> None:
    ((place, message),) = mistakes(client, f'{{"carrier": "UA", "dep time": 1, "distance": {value}}}')
    assert place == "body.row.distance"
    assert "finite" in message
    ((place, _),) = mistakes(client, f'{{"carrier": "UA", "dep time": {value}, "distance": 1}}')
    assert place == "body.row.dep time"


@pytest.mark.parametrize("body", ["", "{", '"UA"', "3", "null", "[1]", "[[]]"])
def test_bodies_that_are_no_rows(client: Client, body: str) -> None:
    assert mistakes(client, body)


def test_no_row_and_too_many_rows(client: Client) -> None:
    assert "at least 1" in mistakes(client, [])[0][1]
    ((place, message),) = mistakes(client, [GOOD] * (app_module.MAX_ROWS + 1))
    assert place == "body.rows"
    assert "at most 10000" in message


def test_whole_floats_are_integers(client: Client, model: ServedModel) -> None:
    answer = client.post("/predict", json={**GOOD, "dep time": 1715.0, "seats": 149.0})
    assert answer.json()["predictions"] == model.predict([{**GOOD, "seats": 149}])


def test_a_failing_model_answers_500_with_an_id_that_is_in_the_log(
    make_package: MakePackage, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(build_app(ServedModel.load(make_package({"answer": "nan"})), name="m", version=1))
    with caplog.at_level(logging.ERROR):
        answer = client.post("/predict", json=GOOD)
    assert answer.status_code == 500
    error_id = answer.json()["error_id"]
    assert "finite" not in answer.text
    assert error_id in caplog.text
    assert "not a finite number" in caplog.text


def test_schema_describes_the_rows(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    row = schema["components"]["schemas"]["Row"]
    assert row["additionalProperties"] is False
    assert row["required"] == ["carrier", "dep time", "distance"]
    assert list(row["properties"]) == ["carrier", "dep time", "distance", "seats", "copy"]
    assert row["properties"]["dep time"] == {
        "type": "integer",
        "minimum": 0.0,
        "maximum": 2359.0,
        "title": "Dep Time",
        "description": "HHMM",
        "examples": [1715],
    }
    assert row["properties"]["seats"]["anyOf"] == [{"type": "integer", "minimum": 1.0}, {"type": "null"}]
    assert client.get("/docs").status_code == 200


def test_routes_are_a_contract(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    assert {path: sorted(methods) for path, methods in schema["paths"].items()} == {
        "/healthz": ["get"],
        "/predict": ["post"],
    }
    assert sorted(schema["paths"]["/predict"]["post"]["responses"]) == ["200", "422", "500"]
    assert sorted(schema["components"]["schemas"]["Predictions"]["properties"]) == ["model", "predictions"]
    assert sorted(schema["components"]["schemas"]["Health"]["properties"]) == [
        "data",
        "model",
        "path",
        "status",
        "version",
    ]


def test_columns_may_have_any_name() -> None:
    names = ["copy", "model_config", "class", "with space", "__init__", "schema"]
    inputs = [InputColumn(name=name, kind="number") for name in names]
    row = row_model(inputs).model_validate(dict.fromkeys(names, 1.0))
    assert row.model_dump(by_alias=True) == dict.fromkeys(names, 1.0)
