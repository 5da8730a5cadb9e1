"""What is sent is taken in time, or the connection is given up."""

from __future__ import annotations

import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from listener.door import Connection, Limits
from listener.sockets import CONNECTION_CLOSED, Socket
from listener.tls import Tls
from tests.authority import Authority

LIMITS = Limits(connections=1, associations=1, per_address=1, idle=0.4, whole=1.2)
LONG = bytes(2**20)
"""More than the buffers of both ends."""


class Ends:
    """Our end of a connection, as the listener has it, and the peer's."""

    def __init__(self, near: socket.socket | Tls, far: socket.socket) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        provider = SimpleNamespace(event_queue=self.events)
        association = cast("Any", SimpleNamespace(dul=provider))
        self.own = Socket(association, Connection(near, "127.0.0.1", ("127.0.0.1", 1)), LIMITS)
        self.events.get_nowait()  # of the connection's beginning
        self.peer = far
        self.read = 0

    def reads(self, size: int, *, pause: float) -> None:
        """Let the peer read so many bytes, again and again, in a thread of its own."""

        def read() -> None:
            with suppress(OSError):
                while data := self.peer.recv(size):
                    self.read += len(data)
                    time.sleep(pause)

        threading.Thread(target=read, daemon=True).start()


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        door.bind(("127.0.0.1", 0))
        door.listen()
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        far.connect(door.getsockname())
        near, _ = door.accept()
    return near, far


def _shake(tls: Tls) -> None:
    while True:
        try:
            return tls.shake()
        except ssl.SSLWantReadError:
            select.select([tls], [], [])
            tls.feed()


@pytest.fixture(params=["plain", "tls"])
def ends(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ends]:
    near: socket.socket | Tls
    accepted, far = _connected()
    near = accepted
    if request.param == "tls":
        authority = Authority(tmp_path_factory.mktemp("authority"))
        own = authority.issue("gateway")
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(own.file, own.key)
        asking = ssl.create_default_context(cafile=authority.file)
        near = Tls(accepted, serving)
        shaking = threading.Thread(target=_shake, args=[near])
        shaking.start()
        far = asking.wrap_socket(far, server_hostname="127.0.0.1")
        shaking.join()
    made = Ends(near, far)
    yield made
    far.close()
    near.close()
    made.own.close_bell()


def _sent(ends: Ends, data: bytes) -> float:
    began = time.monotonic()
    ends.own.send(data)
    return time.monotonic() - began


def test_what_a_peer_reads_in_time_arrives_whole(ends: Ends) -> None:
    ends.reads(65_536, pause=0)
    _sent(ends, LONG)
    assert ends.events.empty()
    until = time.monotonic() + 5
    while ends.read < len(LONG):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_peer_that_reads_now_and_then_is_given_up_when_the_time_of_the_whole_is_over(
    ends: Ends,
) -> None:
    ends.reads(16_384, pause=0.15)
    assert LIMITS.idle < _sent(ends, LONG) < LIMITS.whole + 1
    assert ends.events.get_nowait() == CONNECTION_CLOSED


@pytest.mark.parametrize("size", [0, 1])
def test_a_peer_that_takes_next_to_nothing_is_given_up_after_a_pause(ends: Ends, size: int) -> None:
    if size:
        ends.reads(size, pause=0.1)
    assert LIMITS.idle <= _sent(ends, LONG) < LIMITS.whole
    assert ends.events.get_nowait() == CONNECTION_CLOSED


def test_what_is_sent_after_the_end_is_the_end(ends: Ends) -> None:
    ends.own.close()
    ends.events.queue.clear()
    ends.own.send(b"abc")
    assert ends.events.get_nowait() == CONNECTION_CLOSED


@pytest.mark.parametrize("ends", ["tls"], indirect=True)
def test_the_end_is_told_though_not_all_was_read(ends: Ends) -> None:
    peer = cast("ssl.SSLSocket", ends.peer)
    peer.suppress_ragged_eofs = False
    peer.sendall(bytes(100))
    until = time.monotonic() + 5
    while not ends.own.ready:
        assert time.monotonic() < until
    ends.own.close()
    assert peer.recv(1) == b""
