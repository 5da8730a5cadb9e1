"""A small server that speaks the public contract of an Azure ML managed online endpoint.

``POST /score`` with a bearer key; ``GET /`` says *Healthy*. What goes wrong inside the model comes
back as 424 with the real status in ``ms-azureml-model-error-statuscode`` and ``-reason``, as the
managed front door sends it. Every answer carries ``x-pacs-ai-reference: true``, so that a client
can never take it for one of the real models.

Started as ``python -m pacs_ai.reference.server --model parse2d --port 0 --key-file PATH``; one line
of JSON on standard output names the port when it is ready. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pacs_ai.reference import score
from pacs_ai.reference.frame import BadInputError

MAX_BODY = 100 * 1024 * 1024
"""Bytes of a request (``client_max_body_size`` of the curated container)."""

REFERENCE_HEADER = "x-pacs-ai-reference"
DEPLOYMENT = "reference"
"""The one deployment there is; ``azureml-model-deployment`` may name it or be left out."""

SERVER_VERSION = "pacs-ai-reference/1"
_ECHOED = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
_LONGEST_ID = 100

log = logging.getLogger(__name__)

Run = Callable[[object, object], list[dict[str, Any]]]


class _ModelError(Exception):
    """The container answered with another status than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _TooLargeError(Exception):
    """The request is larger than :data:`MAX_BODY`."""


class Endpoint:
    """The endpoint of one model.

    Parameters
    ----------
    key : str
        The bearer key; without a right one every request is answered 401.
    run : callable
        ``run(input_data, params)`` of the scoring script.
    """

    def __init__(self, key: str, run: Run) -> None:
        self._key = key.encode()
        self._run = run
        # One request at a time is the default of the real deployments, and keeps memory in bounds.
        self._turn = asyncio.Lock()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.health, methods=["GET"]),
                Route("/score", self.score, methods=["POST"]),
            ]
        )

    async def health(self, _: Request) -> Response:
        """Answer a health probe."""
        return PlainTextResponse("Healthy", headers={REFERENCE_HEADER: "true"})

    async def score(self, request: Request) -> Response:
        """Answer a scoring request."""
        headers = {
            name: request.headers[name][:_LONGEST_ID] for name in _ECHOED if name in request.headers
        }
        headers |= {REFERENCE_HEADER: "true", "x-ms-server-version": SERVER_VERSION}
        refused = self._refusal(request)
        if refused is not None:
            refused.headers.update(headers)
            return refused
        try:
            body = await _body(request)
            started = time.perf_counter()
            async with self._turn:
                answer = await run_in_threadpool(self._answer, body)
        except _TooLargeError:
            return PlainTextResponse("Request Entity Too Large", 413, headers)
        except _ModelError as error:
            headers["ms-azureml-model-error-statuscode"] = str(error.status)
            headers["ms-azureml-model-error-reason"] = error.reason
            return JSONResponse({"message": error.reason}, 424, headers)
        headers["x-ms-run-fn-exec-ms"] = f"{(time.perf_counter() - started) * 1000:.0f}"
        return Response(answer, 200, headers, "application/json")

    def _refusal(self, request: Request) -> Response | None:
        """Return what the front door answers before the container is asked, if anything."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._key):
            return JSONResponse({"message": "key_auth_access_denied"}, 401)
        if request.headers.get("azureml-model-deployment", DEPLOYMENT) != DEPLOYMENT:
            return JSONResponse({"message": "no such deployment"}, 404)
        for name in ("x-request-id", "x-ms-client-request-id"):
            if len(request.headers.get(name, "")) > _LONGEST_ID:
                reason = f"{name} is longer than {_LONGEST_ID} characters"
                return _front_door(431, reason)
        return None

    def _answer(self, body: bytes) -> bytes:
        input_data, params = _parsed(body)
        try:
            return json.dumps(self._run(input_data, params), allow_nan=False).encode()
        except BadInputError as error:
            raise _ModelError(400, str(error)) from error
        except Exception as error:
            # The outer rim of the model: whatever it raises is one answer to the client.
            log.exception("the scoring script failed")
            reason = "An unexpected error occurred in scoring script."
            raise _ModelError(500, f"{reason} Check the logs for more info.") from error


def _front_door(status: int, reason: str) -> Response:
    headers = {
        "ms-azureml-model-error-statuscode": str(status),
        "ms-azureml-model-error-reason": reason,
    }
    return JSONResponse({"message": reason}, 424, headers)


async def _body(request: Request) -> bytes:
    """Read a request's body, never more than :data:`MAX_BODY`."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > MAX_BODY:
        raise _TooLargeError
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise _TooLargeError
        parts.append(part)
    return b"".join(parts)


def _parsed(body: bytes) -> tuple[object, object]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _ModelError(400, "the request is not JSON") from error
    if not isinstance(value, Mapping) or "input_data" not in value:
        raise _ModelError(400, "the request must be an object with input_data")
    unknown = sorted(set(value) - {"input_data", "params"})
    if unknown:
        raise _ModelError(400, "the request has keys beside input_data and params")
    return value["input_data"], value.get("params")


def serve(model: str, *, host: str, port: int, key: str) -> None:
    """Serve a model until SIGTERM or SIGINT; say on standard output when ready.

    Runs in the main thread of a process of its own.

    Parameters
    ----------
    model : str
        Row of :data:`pacs_ai.reference.score.MODELS`.
    host : str
        Address to listen on.
    port : int
        Port, or 0 for any that is free.
    key : str
        The bearer key that requests must carry.
    """
    score.load(model)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    # Listening before it is announced: a client that reads the line may connect at once.
    listening.listen(128)
    config = uvicorn.Config(
        Endpoint(key, score.run).app(),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=30,
    )
    ready = {"model": model, "port": listening.getsockname()[1]}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    # When it has shut down, uvicorn raises the signal again for whoever was there before: nobody.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignored)
    uvicorn.Server(config).run(sockets=[listening])


def _ignored(number: int, frame: FrameType | None) -> None:
    """Leave a signal be: the server has already ended by it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the server from the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pacs_ai.reference.server",
        description="Serve one of the built-in reference models; not for clinical use.",
    )
    parser.add_argument("--model", required=True, choices=sorted(score.MODELS))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument(
        "--key-file", type=Path, required=True, help="file that holds the bearer key"
    )
    options = parser.parse_args(arguments)
    try:
        key = options.key_file.read_text(encoding="utf-8").strip()
    except OSError:
        parser.error(f"cannot read the key file {options.key_file}")
    if not key:
        parser.error(f"the key file {options.key_file} is empty")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    serve(options.model, host=options.host, port=options.port, key=key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
