"""A deployed model as its clients see it: where it is, which model it says it is, and its answers."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
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

    def is_up(self) -> bool:
        """Whether the endpoint answers with the model it was deployed with."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310
                health = json.loads(answer.read())
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
            predictions += self._post(rows[start : start + rows_per_request])["predictions"]
        return predictions

    def _post(self, rows: Sequence[Mapping[str, object]]) -> dict[str, Any]:
        url = f"{self.url}/predict"
        body = json.dumps(list(rows), allow_nan=False).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            got = error.read(2000).decode(errors="replace")
            raise ServingFailure(f"the endpoint answered {error.code}", where=url, got=got) from error
        except (OSError, HTTPException) as error:
            raise ServingFailure("the endpoint does not answer", where=url, got=str(error)) from error
