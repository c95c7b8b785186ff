"""POST /generate over real HTTP: whole, in pieces, and refused."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from heliostat.cluster.ports import free_ports
from heliostat.errors import ServingFailure
from heliostat.serve.endpoint import Endpoint
from heliostat.serve.served import app_of
from heliostat.serve.text_model import ServedText
from heliostat.train.text import Sampling
from tests.serve.conftest import MakePackage

HOST = "127.0.0.1"
Serve = Callable[[ServedText], Endpoint]


@contextmanager
def serving(model: ServedText) -> Iterator[Endpoint]:
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app_of(model, name="verses", version=4), host=HOST, port=port, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    endpoint = Endpoint(
        app="verses", url=f"http://{HOST}:{port}", model="verses@4", data_version="verses@2", path="/generate"
    )
    try:
        while not endpoint.is_up():
            assert thread.is_alive()
        yield endpoint
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda model: stack.enter_context(serving(model))


def post(endpoint: Endpoint, body: object) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": "application/json"}
    return httpx.post(f"{endpoint.url}/generate", content=content, headers=headers, timeout=10)


def test_the_text_is_the_same_offline_whole_and_in_pieces(make_text_package: MakePackage, serve: Serve) -> None:
    model = ServedText.load(make_text_package())
    endpoint = serve(model)
    for sampling in (Sampling(max_tokens=9), Sampling(max_tokens=30, temperature=1.3, top_k=4, seed=11)):
        offline = list(model.generate("abc", sampling))
        assert endpoint.generate("abc", **sampling.model_dump()) == "".join(offline)
        assert list(endpoint.stream("abc", **sampling.model_dump())) == offline


def test_a_stream_is_server_sent_events(make_text_package: MakePackage, serve: Serve) -> None:
    answer = post(serve(ServedText.load(make_text_package())), {"prompt": "a", "max_tokens": 2, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert [sorted(json.loads(piece.removeprefix("data: "))) for piece in pieces] == [["text"]] * 2
    assert end == 'event: end\ndata: {"model": "verses@4"}'


def test_pieces_come_before_the_text_is_complete(make_text_package: MakePackage, serve: Serve) -> None:
    """The muse waits for the client to have read a piece before it goes on."""
    model = ServedText.load(make_text_package())
    read = threading.Semaphore(0)
    generate = model.generate

    def waiting(prompt: str, sampling: Sampling) -> Iterator[str]:
        for number, piece in enumerate(generate(prompt, sampling)):
            assert number == 0 or read.acquire(timeout=10)
            yield piece

    model.generate = waiting  # type: ignore[method-assign]
    received = []
    for piece in serve(model).stream("a", max_tokens=5):
        received.append(piece)
        read.release()
    assert len(received) == 5


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        ({}, "prompt", "Field required"),
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": 7}, "prompt", "valid string"),
        ({"prompt": "xyz"}, "prompt", "letters that the verses lack"),
        ({"prompt": "xyz", "stream": True}, "prompt", "letters that the verses lack"),
        ({"prompt": "a", "temperature": -0.5}, "temperature", "greater than or equal to 0"),
        ('{"prompt": "a", "temperature": NaN}', "temperature", "finite"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"prompt": "a", "max_tokens": 1001}, "max_tokens", "less than or equal to 1000"),
        ({"prompt": "a", "max_tokens": "9"}, "max_tokens", "valid integer"),
        ({"prompt": "a", "top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"prompt": "a", "seed": 2**63}, "seed", "less than"),
        ({"prompt": "a", "temprature": 1}, "temprature", "Extra inputs are not permitted"),
        ("{", "body", "JSON decode error"),
        ("[]", "body", "valid dictionary"),
    ],
)
def test_a_bad_request_is_told_what_and_where(refusing: Endpoint, body: Any, where: str, what: str) -> None:
    answer = post(refusing, body)
    assert answer.status_code == 400
    [mistake] = answer.json()["detail"]
    assert mistake["where"] == where
    assert what in mistake["what"]


@pytest.fixture
def refusing(make_text_package: MakePackage, serve: Serve) -> Endpoint:
    return serve(ServedText.load(make_text_package()))


def test_all_mistakes_at_once(refusing: Endpoint) -> None:
    detail = post(refusing, {"prompt": "", "temperature": -1, "top_k": 0.5}).json()["detail"]
    assert [(one["where"], one["got"]) for one in detail] == [("temperature", -1), ("top_k", "0.5"), ("prompt", "")]


def test_a_model_that_fails_is_a_500_or_ends_its_stream(
    make_text_package: MakePackage, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    at_once = serve(ServedText.load(make_text_package({"fails_at": 0})))
    with caplog.at_level(logging.ERROR):
        answer = post(at_once, {"prompt": "a"})
    assert answer.status_code == 500
    assert answer.json()["error_id"] in caplog.text
    assert "muse" not in answer.text

    later = serve(ServedText.load(make_text_package({"fails_at": 3})))
    with pytest.raises(ServingFailure, match="failed within a text"):
        list(later.stream("a"))
    assert post(later, {"prompt": "a"}).status_code == 500
    assert "the muse is silent" in caplog.text
    with pytest.raises(ServingFailure, match="answered 400"):
        later.generate("")


def test_routes_are_a_contract(refusing: Endpoint) -> None:
    health = httpx.get(f"{refusing.url}/healthz").json()
    assert health == {"status": "ok", "model": "verses", "version": 4, "data": "verses@2", "path": "/generate"}
    schema = httpx.get(f"{refusing.url}/openapi.json").json()
    assert {path: sorted(methods) for path, methods in schema["paths"].items()} == {
        "/healthz": ["get"],
        "/generate": ["post"],
    }
    generate = schema["paths"]["/generate"]["post"]["responses"]
    assert {"200", "400", "500"} <= set(generate)
    assert sorted(generate["200"]["content"]) == ["application/json", "text/event-stream"]
    request = schema["components"]["schemas"]["GenerateRequest"]
    assert sorted(request["properties"]) == ["max_tokens", "prompt", "seed", "stream", "temperature", "top_k"]
    assert request["required"] == ["prompt"]
