"""The scoring client: one call to one endpoint, over the contract of Azure ML (``/score``).

One call is one exchange; whether and when it is tried again is the ledger's business, by the type
of what is raised. Messages name the host, the status and what to do; never pixels, prompts or keys.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pacs_ai import http
from pacs_ai.errors import ConfigError, InferenceError, InferenceUnavailableError, TransientError
from pacs_ai.models import answer
from pacs_ai.settings import Endpoint, Secret

BODY_LIMIT = 2**30
"""Most bytes of an answer that are read."""

REFERENCE_HEADER = "x-pacs-ai-reference"
"""The built-in reference models say ``true`` in this header of every answer."""

_REQUEST_ID = "x-ms-client-request-id"
_INNER_STATUS = "ms-azureml-model-error-statuscode"
_LATER = frozenset({408, 425, 429})
"""Client errors that time may heal."""


def score(
    endpoint: Endpoint,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    params: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Ask an endpoint to score rows, and return one record for each.

    Rows stand for themselves: more than one request may carry are sent in several, one after another.

    Parameters
    ----------
    endpoint : Endpoint
        Its ``timeout`` is the deadline of each whole exchange.
    columns : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        One value for each column: text, or base64 without line breaks.
    params : mapping, optional
        Sent as ``params`` when given.

    Raises
    ------
    InferenceUnavailableError
        When no answer came, or one that says "later": 408, 429, 5xx, 424 with an inner 5xx or
        none; and when the key cannot be read.
    InferenceError
        When the endpoint refused for good, or answered something that is not an answer; and when the
        request of one row is larger than its ``maximum_request``.
    """
    body = request(columns, rows, params)
    if len(body) <= endpoint.maximum_request or len(rows) == 1:
        return send(endpoint, body, count=len(rows))
    del body  # up to the limit's own size; its parts are as much again
    middle = len(rows) // 2
    return [
        record
        for part in (rows[:middle], rows[middle:])
        for record in score(endpoint, columns, part, params)
    ]


def request(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    params: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the body that asks for rows to be scored, as :func:`score` sends it."""
    body: dict[str, Any] = {
        "input_data": {
            "columns": list(columns),
            "index": list(range(len(rows))),
            "data": [list(row) for row in rows],
        }
    }
    if params is not None:
        body["params"] = dict(params)
    return json.dumps(body, allow_nan=False).encode()


def send(endpoint: Endpoint, body: bytes, *, count: int) -> list[dict[str, Any]]:
    """Send a body of :func:`request` that asks for so many rows; as :func:`score`."""
    if len(body) > endpoint.maximum_request:
        raise InferenceError(
            f"a request of {len(body)} bytes to {_host(endpoint)} is larger than maximum_request "
            f"({endpoint.maximum_request}) and cannot be divided: let the endpoint's front door take "
            "as much, and raise maximum_request to that"
        )
    response = _ask(endpoint, body)
    if response.status == 401:
        # The key may have been rotated since it was read; it is read again for the second try.
        response = _ask(endpoint, body)
    _check_status(endpoint, response)
    _check_reference(endpoint, response)
    return answer.records(answer.parse(response.body, what="the answer"), count=count)


def _key(endpoint: Endpoint, key: Secret) -> str:
    try:
        return key.read()
    except ConfigError as error:  # while it is rotated it may be away for a moment
        raise InferenceUnavailableError(f"endpoint of {endpoint.name}: {error}") from error


def _ask(endpoint: Endpoint, body: bytes) -> http.Response:
    request_id = str(uuid.uuid4())
    headers = {_REQUEST_ID: request_id, "Content-Type": "application/json"}
    if endpoint.key is not None:
        headers["Authorization"] = f"Bearer {_key(endpoint, endpoint.key)}"
    if endpoint.deployment is not None:
        headers["azureml-model-deployment"] = endpoint.deployment
    try:
        with http.session() as session:
            response = http.exchange(
                session,
                "POST",
                endpoint.url,
                deadline=endpoint.timeout,
                body_limit=BODY_LIMIT,
                headers=headers,
                data=body,
            )
    except TransientError as error:
        raise InferenceUnavailableError(f"endpoint of {endpoint.name}: {error}") from error
    except (http.AddressError, http.AnswerError) as error:
        raise InferenceError(f"endpoint of {endpoint.name}: {error}") from error
    echoed = response.headers.get(_REQUEST_ID)
    if echoed is not None and echoed != request_id:
        raise InferenceError(
            f"{_host(endpoint)} answered another request than the one asked "
            f"({_REQUEST_ID} differs): look for a cache or proxy between gateway and endpoint"
        )
    return response


def _check_status(endpoint: Endpoint, response: http.Response) -> None:
    """Raise by the class of the status (model-contracts §1.4)."""
    status = response.status
    if status == 200:
        return
    inner = _inner_status(response) if status == 424 else None
    text = f"{_host(endpoint)} answered {status}" + (f" (model: {inner})" if inner else "")
    deciding = status if status != 424 else inner if inner is not None else 500
    if deciding in _LATER or deciding >= 500:
        raise InferenceUnavailableError(text, retry_after=_retry_after(response))
    raise InferenceError(f"{text}: {_remedy(status)}")


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "check the endpoint's key and its permission"
    if status == 404:
        return "check the endpoint's url, its deployment and that it has traffic"
    if status == 413:
        return (
            "the request is larger than it takes: set the endpoint's maximum_request to its limit"
        )
    if 300 <= status < 400:
        return "it redirects, which is not followed: set url to the final address"
    return "the model does not take this input; see the endpoint's own log"


def _inner_status(response: http.Response) -> int | None:
    """Return the status that the model's container gave, which a 424 hides in a header."""
    text = response.headers.get(_INNER_STATUS, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else None


def _retry_after(response: http.Response) -> float | None:
    """Return Retry-After in seconds; its form as a date is left to the ledger's own back-off."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= 86400 else None


def _check_reference(endpoint: Endpoint, response: http.Response) -> None:
    says = response.headers.get(REFERENCE_HEADER, "").strip().lower() == "true"
    if says and not endpoint.reference:
        raise InferenceError(
            f"{_host(endpoint)} is a reference model, not for clinical use, and its settings do "
            "not say so: set reference: true on this endpoint, or correct its url"
        )


def _host(endpoint: Endpoint) -> str:
    return f"the endpoint of {endpoint.name} at {urlsplit(endpoint.url).hostname}"
