"""The web face in a process of its own, against clients that are silent, drip, or are too many."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tests.unit.web.serving import serving

SERVED = """
import sys, time
from tests.unit.web.test_app import FakeViews, reading_app
from pacs_ai.settings import Web
from pacs_ai.web import app, connections
connections.HEAD_SECONDS = 1.0
connections.MAXIMUM, connections.MAXIMUM_PER_ADDRESS = 6, 4
class Slow(FakeViews):
    def studies(self):
        time.sleep(3)
        return []
    def health(self):
        return {"large": "x" * 20_000_000}
app.run(reading_app(Slow()), Web(port=int(sys.argv[1])), ready=lambda: print("ready", flush=True))
"""
HEAD = b"GET /dicom-web/workitems HTTP/1.1\r\nHost: 127.0.0.1\r\n"
WHOLE = HEAD + b"\r\n"
SLOW = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
STORE = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(SERVED) as (process, found):
        yield found
        process.terminate()
        printed, _ = process.communicate(timeout=20)
    assert "Traceback" not in printed


@pytest.fixture
def opened(port: int) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
    time.sleep(0.2)  # the next test begins without these


def connect(opened: ExitStack, port: int, source: str = "127.0.0.1") -> socket.socket:
    return opened.enter_context(
        socket.create_connection(("127.0.0.1", port), timeout=8, source_address=(source, 0))
    )


def ended(one: socket.socket) -> bool:
    """Read until the other side closes; False when it does not."""
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def answer(one: socket.socket) -> int:
    response = HTTPResponse(one)
    response.begin()
    response.read()
    return response.status


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, b"\r\n"], ids=["silent", "byte", "half", "line"])
def test_who_brings_no_whole_head_is_closed(port: int, opened: ExitStack, sent: bytes) -> None:
    began = time.monotonic()
    one = connect(opened, port)
    one.sendall(sent)
    assert ended(one)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("first", [HEAD + b"X: ", STORE, WHOLE], ids=["head", "refused", "next"])
def test_who_drips_is_closed(port: int, opened: ExitStack, first: bytes) -> None:
    began = time.monotonic()
    one = connect(opened, port)
    one.sendall(first)
    with pytest.raises(ConnectionError):
        while time.monotonic() - began < 5:
            one.sendall(b"x" if first != WHOLE else b"\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began < 4


def test_a_body_that_was_refused_by_its_head_is_read_so_that_its_answer_arrives(
    port: int, opened: ExitStack
) -> None:
    one = connect(opened, port)
    one.sendall(STORE)
    assert answer(one) == 401
    one.sendall(b"x" * 1000 + WHOLE)
    assert answer(one) == 200


def test_a_request_that_takes_longer_is_answered_and_the_connection_goes_on(
    port: int, opened: ExitStack
) -> None:
    one = connect(opened, port)
    for request in (SLOW, SLOW, WHOLE):
        one.sendall(request)
        assert answer(one) == 200
        time.sleep(0.3)


def test_who_takes_no_answer_is_closed_and_who_is_slow_is_not(port: int, opened: ExitStack) -> None:
    one, slow = (connect(opened, port) for _ in range(2))
    one.sendall(LARGE * 3)
    slow.sendall(LARGE)
    taken, began = 0, time.monotonic()
    while taken < 20_000_000 and (piece := slow.recv(4_000_000)):
        taken += len(piece)
        time.sleep(0.15)
    assert taken > 20_000_000
    time.sleep(max(0.0, 4 - (time.monotonic() - began)))
    taken = 0
    with pytest.raises(ConnectionError):
        while True:
            taken += len(one.recv(65536)) or _gone()
    assert taken < 20_000_000


def _gone() -> int:
    raise ConnectionError


def test_of_too_many_from_one_address_the_longest_silent_is_closed(
    port: int, opened: ExitStack
) -> None:
    busy = connect(opened, port)
    busy.sendall(SLOW)
    time.sleep(0.1)
    silent = [connect(opened, port) for _ in range(3)]
    time.sleep(0.1)
    newcomer = connect(opened, port)
    newcomer.sendall(WHOLE)
    assert answer(newcomer) == 200
    silent[0].settimeout(0.4)
    assert ended(silent[0])
    silent[1].sendall(WHOLE)
    assert answer(silent[1]) == 200
    assert answer(busy) == 200


def test_requests_under_way_keep_their_places(port: int, opened: ExitStack) -> None:
    busy = [connect(opened, port) for _ in range(4)]
    for one in busy:
        one.sendall(SLOW)
    time.sleep(0.2)
    newcomer = connect(opened, port)
    newcomer.settimeout(0.5)
    assert ended(newcomer)
    other = connect(opened, port, "127.0.0.2")
    other.sendall(WHOLE)
    assert answer(other) == 200
    assert all(answer(one) == 200 for one in busy)


def test_of_too_many_in_all_one_of_the_address_with_most_is_closed(
    port: int, opened: ExitStack
) -> None:
    lonely = connect(opened, port, "127.0.0.3")
    time.sleep(0.05)
    many = [connect(opened, port, "127.0.0.2") for _ in range(4)]
    last = [connect(opened, port, "127.0.0.4") for _ in range(2)]
    many[0].settimeout(0.5)
    assert ended(many[0])
    for one in (lonely, *many[1:], *last):
        one.sendall(WHOLE)
        assert answer(one) == 200


def test_uvicorn_has_no_time_out_for_a_head_of_its_own() -> None:
    # When this fails, see whether pacs_ai.web.connections is needed any longer.
    loop, transport = Mock(), Mock()
    transport.get_extra_info.return_value = None
    config = uvicorn.Config(Mock(), http="h11", lifespan="off", log_config=None)
    protocol = H11Protocol(config, ServerState(), {}, loop)
    protocol.connection_made(transport)
    protocol.data_received(HEAD)
    loop.call_later.assert_not_called()
    loop.call_at.assert_not_called()
