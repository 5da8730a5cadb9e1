"""A scriptable endpoint on loopback: real HTTP, with the faults that a real one cannot be made to show."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from pacs_ai.settings import Endpoint, Secret

Kind = Literal["insight", "parse2d", "parse3d", "cxrreport"]


@dataclass
class Answer:
    """What the endpoint answers to one request."""

    body: Any = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the first byte."""
    cut: bool = False
    """Announces more than it sends, then hangs up."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    def row(self) -> dict[str, str]:
        """The first row by column."""
        table = self.body["input_data"]
        return dict(zip(table["columns"], table["data"][0], strict=True))


class FakeEndpoint:
    """Answers from a script, in order; the last answer is kept for whatever comes after."""

    def __init__(self, script: list[Answer | Callable[[Asked], Any]]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.most = 0
        """Most requests that were under way at once."""
        self._under_way = 0
        self._counting = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/score"

    def settings(self, kind: Kind = "insight", **changes: Any) -> Endpoint:
        values: dict[str, Any] = {"name": "Model", "version": "1", "timeout": timedelta(seconds=5)}
        return Endpoint(kind=kind, url=self.url, **(values | changes))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            yield
        finally:
            with self._counting:
                self._under_way -= 1

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        said = step if isinstance(step, Answer) else step(asked)
        return said if isinstance(said, Answer) else Answer(said)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                with fake._counted():
                    answer = fake._answer(Asked(self.path, headers, json.loads(data)))
                    time.sleep(answer.delay)
                try:
                    _send(self, answer)
                except OSError:
                    self.close_connection = True  # the client gave up, as some tests want

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    data = answer.data()
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data) + 1000 * answer.cut))
    handler.end_headers()
    if answer.drip:
        for byte in data:
            handler.wfile.write(bytes([byte]))
            time.sleep(answer.drip)
    else:
        handler.wfile.write(data)
    if answer.cut:
        handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def endpoint(*script: Answer | Callable[[Asked], Any]) -> Iterator[FakeEndpoint]:
    """Run an endpoint for a test."""
    fake = FakeEndpoint(list(script))
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()


def key(path: str) -> Secret:
    """Return a reference to a key file."""
    return Secret.model_validate(f"file:{path}")
