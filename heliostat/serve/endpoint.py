"""A deployed model as its clients see it: where it is, which model it says it is, and its answers."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any

from heliostat.errors import ServingFailure
from heliostat.values import Frozen

HEALTH_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0


class Endpoint(Frozen):
    """A deployed model."""

    app: str
    """Name of the Serve application."""
    url: str
    model: str
    """`name@version`."""
    data_version: str
    """What it was trained on."""
    path: str = "/predict"
    """Where it answers."""

    def health(self) -> dict[str, Any]:
        """What it says of itself.

        Raises:
            OSError, HTTPException, ValueError: it does not.
        """
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310
            return dict(json.loads(answer.read()))

    def is_up(self) -> bool:
        """Whether the endpoint answers with the model it was deployed with."""
        try:
            health = self.health()
        except (OSError, HTTPException, ValueError):
            return False
        return f"{health.get('model')}@{health.get('version')}" == self.model

    def ask(self, rows: Sequence[Mapping[str, object]], *, rows_per_request: int) -> list[Any]:
        """Send `rows` in requests of at most `rows_per_request`; one prediction per row, in order.

        Raises:
            ServingFailure: no answer, or one that is not 200; its body is in the message.

        """
        predictions: list[Any] = []
        for start in range(0, len(rows), rows_per_request):
            with self._post(list(rows[start : start + rows_per_request])) as answer:
                predictions += json.loads(answer.read())["predictions"]
        return predictions

    def generate(self, prompt: str, **sampling: object) -> str:
        """The text that the model adds to `prompt`; `sampling` as POST /generate takes it.

        Raises:
            ServingFailure: as `ask`.

        """
        with self._post({"prompt": prompt, **sampling}) as answer:
            return str(json.loads(answer.read())["text"])

    def stream(self, prompt: str, **sampling: object) -> Iterator[str]:
        """The same text in pieces as they come.

        Raises:
            ServingFailure: as `ask`; or the stream ends before the text does.

        """
        with self._post({"prompt": prompt, "stream": True, **sampling}) as answer:
            event = ""
            for line in (raw.decode().rstrip("\n") for raw in answer):
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "error":
                    raise ServingFailure("the model failed within a text", where=self.url, got=value)
                elif name == "data" and not event:
                    yield json.loads(value)["text"]
        if event != "end":
            raise ServingFailure("the stream ended before the text did", where=self.url)

    @contextmanager
    def _post(self, content: object) -> Iterator[HTTPResponse]:
        url = f"{self.url}{self.path}"
        body = json.dumps(content, allow_nan=False).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
                yield answer
        except urllib.error.HTTPError as error:
            got = error.read(2000).decode(errors="replace")
            raise ServingFailure(f"the endpoint answered {error.code}", where=url, got=got) from error
        except (OSError, HTTPException) as error:
            raise ServingFailure("the endpoint does not answer", where=url, got=str(error)) from error
