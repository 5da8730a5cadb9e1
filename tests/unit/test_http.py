"""Sessions: https or loopback, no redirect, no retry, an end to every request."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from pacs_ai import http
from tests.authority import Authority

SECOND = timedelta(seconds=1)


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Run a raw peer that says what a test wants, once per connection."""
    requests: list[bytes] = []
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        connection.settimeout(2)
                        requests.append(connection.recv(65536))
                        talk(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/x", requests
        finally:
            stop.set()
            thread.join()


def answering(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def ask(url: str, *, deadline: timedelta = SECOND, limit: int = 1000) -> http.Response:
    with http.session() as session:
        return http.exchange(session, "GET", url, deadline=deadline, body_limit=limit)


def test_a_whole_answer_is_read() -> None:
    with peer(answering(b"HTTP/1.1 200 OK\r\nX-Word: yes\r\nContent-Length: 2\r\n\r\nhi")) as (
        url,
        _,
    ):
        answer = ask(url)
    assert (answer.status, answer.body, answer.headers["x-word"]) == (200, b"hi", "yes")


def test_redirect_is_an_answer_and_is_not_followed() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with peer(answering(moved)) as (url, requests):
        assert ask(url).status == 307
        with http.session() as session:
            assert session.get(url).status_code == 307
    assert len(requests) == 2


def test_nothing_is_sent_twice_when_the_peer_hangs_up() -> None:
    with peer(lambda connection: connection.close()) as (url, requests):
        with pytest.raises(http.UnreachableError):
            ask(url)
        time.sleep(0.2)
    assert len(requests) == 1


def test_silence_that_the_read_notices_first_is_late_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Watch, "_end", lambda _: None)
    with (
        peer(lambda _: time.sleep(1.5)) as (url, _),
        pytest.raises(http.UnreachableError, match=r"within 0\.4 s"),
    ):
        ask(url, deadline=timedelta(seconds=0.4))


def test_silence_ends_at_the_deadline() -> None:
    with peer(lambda _: time.sleep(1.5)) as (url, _):
        begin = time.monotonic()
        with pytest.raises(http.UnreachableError, match=r"within 0\.4 s"):
            ask(url, deadline=timedelta(seconds=0.4))
        assert time.monotonic() - begin < 1.2


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"])
def test_bytes_that_drip_do_not_stretch_the_deadline(head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(60):
            connection.sendall(b"H")
            time.sleep(0.05)

    with peer(drip) as (url, _):
        begin = time.monotonic()
        with pytest.raises(http.UnreachableError, match="no whole answer"):
            ask(url, deadline=timedelta(seconds=0.4))
        assert time.monotonic() - begin < 1.2


def test_answer_that_is_cut_off_is_no_answer() -> None:
    with (
        peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as (url, _),
        pytest.raises(http.UnreachableError),
    ):
        ask(url)


@pytest.mark.parametrize(
    "head", [b"Content-Length: 5000\r\n\r\n", b"Connection: close\r\n\r\n"], ids=["told", "untold"]
)
def test_body_beyond_the_limit_is_refused(head: bytes) -> None:
    with (
        peer(answering(b"HTTP/1.1 200 OK\r\n" + head + bytes(5000))) as (url, _),
        pytest.raises(http.AnswerError, match="more than 1000 bytes"),
    ):
        ask(url)


def test_compressed_answer_is_refused() -> None:
    zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
    with (
        peer(answering(zipped)) as (url, requests),
        pytest.raises(http.AnswerError, match="compressed"),
    ):
        ask(url)
    assert b"Accept-Encoding: identity" in requests[0]


def test_no_listener_is_unreachable_and_the_message_has_no_query() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(http.UnreachableError) as caught:
        ask(f"http://127.0.0.1:{port}/x?name=DOE")
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "http://pacs.example/x", "ftp://192.0.2.1/"])
def test_plain_http_goes_to_loopback_only(url: str) -> None:
    with pytest.raises((http.AddressError, http.UnreachableError)) as caught:
        ask(url)
    assert url.startswith("ftp") or isinstance(caught.value, http.AddressError)


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with peer(answering(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert ask(url).status == 204


BODY = bytes(32 * 2**20)
"""More than the buffers between two sockets take."""


@contextmanager
def slow_reader(folder: Path, *, scheme: str, seconds: float) -> Iterator[tuple[str, Path]]:
    """Take one connection and read nothing for a while, then the whole request; then answer it."""
    authority = Authority(folder)
    issued = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.file, issued.key)
    stop = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        connection.settimeout(10)
        if scheme == "https":
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            stop.wait(seconds)
            left = len(BODY)
            try:
                while left > 0 and (data := connection.recv(2**20)):
                    left -= len(data)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/x", authority.file
        stop.set()
        thread.join()


def post(url: str, authority: Path, *, deadline: timedelta) -> http.Response:
    with http.session() as session:
        session.verify = str(authority)
        return http.exchange(session, "POST", url, deadline=deadline, body_limit=9, data=BODY)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_body_may_take_longer_to_send_than_the_connection_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 1.0)
    with slow_reader(tmp_path, scheme=scheme, seconds=1.5) as (url, authority):
        assert post(url, authority, deadline=timedelta(seconds=20)).status == 204


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_body_that_is_not_taken_ends_at_the_deadline(tmp_path: Path, scheme: str) -> None:
    with slow_reader(tmp_path, scheme=scheme, seconds=9) as (url, authority):
        begin = time.monotonic()
        with pytest.raises(http.UnreachableError, match=r"within 1 s"):
            post(url, authority, deadline=SECOND)
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_body_without_a_deadline_has_the_time_of_a_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 1.0)
    with slow_reader(tmp_path, scheme=scheme, seconds=9) as (url, authority):
        begin = time.monotonic()
        with http.session() as session, pytest.raises((OSError, requests.RequestException)):
            session.post(url, data=BODY, verify=str(authority))
        assert time.monotonic() - begin < 4
