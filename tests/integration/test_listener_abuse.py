"""Hostile peers on raw sockets: whatever they do, who belongs here is answered in time.

Each attack runs from the good peer's own address and from others of its peer's, which are let in as far,
while the good peer asks for C-ECHO. Nothing remains of it: memory, threads and descriptors of the
listener's process return, and the good peer is let in at once, with TLS too. Bounds are those of
``reliability.md`` §9.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest

from listener import door
from pacs_ai.settings import load
from tests.authority import Authority
from tests.integration import wire
from tests.integration.listening import CALLED, CALLING, CT, write_settings

OWN, OTHER = "127.0.0.1", "127.0.0.2"
OTHERS = (OTHER, "127.0.0.3", "127.0.0.4", "127.0.0.5")
SECONDS = 1.0
SLOWEST = 1.0
PAUSE = 0.005
"""So long an attacker rests between two connections: it must not starve the good peer beside it here."""
MEMORY = 64 * 2**20
LEDGER = 15
"""Descriptors of the five connections that the ledger may keep open."""
RATE = 200
"""Connects a second of a burst."""
IDLE = 80
"""Idle associations that an attacker holds: more than the 64 seats of a listener."""
MAXIMUM_OBJECT = 4 * 2**20
CONTEXTS = [(1, wire.VERIFICATION, wire.IMPLICIT), (3, CT, wire.EXPLICIT)]


@dataclass(frozen=True)
class Victim:
    """A listener in a process of its own."""

    port: int
    process: psutil.Process
    spool: Path
    threads: int
    descriptors: int
    tls: ssl.SSLContext | None

    def echo(self) -> None:
        """Be the good peer."""
        wire.echo(self.port, CALLING, CALLED, self.tls)

    def is_calm(self) -> bool:
        """Tell whether threads and descriptors are as they were when it started."""
        threads, descriptors = self.process.num_threads(), self.process.num_fds()
        return threads <= self.threads and descriptors <= self.descriptors + LEDGER


@contextmanager
def victim(
    folder: Path,
    tls: ssl.SSLContext | None = None,
    *,
    by: Sequence[str] = (),
    **settings_of_listener: Any,
) -> Iterator[Victim]:
    """Run a listener for the length of the block, started by another command where one is given."""
    file = folder / "settings.yaml"
    file.write_text(write_settings(folder, addresses=(OWN, *OTHERS), **settings_of_listener))
    settings = load(file)
    command = [*by, sys.executable, "-m", "pacs_ai.cli", "listener", "--config", str(file)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as started,
    ):
        try:
            assert started.stdout is not None
            assert b'"ready": true' in started.stdout.readline(), (folder / "log").read_text()
            port, process = settings.listener.port, psutil.Process(started.pid)
            threads = process.num_threads()
            for _ in range(5):  # what is loaded or opened once is there before anything is counted
                wire.echo(port, CALLING, CALLED, tls)
            yield Victim(port, process, settings.spool_path, threads, process.num_fds(), tls)
        finally:
            started.terminate()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("abuse"), maximum_object=MAXIMUM_OBJECT) as started:
        yield started


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    own = authority.issue("gateway")
    context = ssl.create_default_context(cafile=authority.file)
    files = {"certificate": str(own.file), "key": str(own.key)}
    with victim(
        tmp_path_factory.mktemp("secured"), context, maximum_object=MAXIMUM_OBJECT, **files
    ) as started:
        yield started


# ---------------------------------------------------------------------- attacks


@dataclass(frozen=True)
class Attack:
    """What an attacker does until it is told to stop."""

    port: int
    source: str
    over: threading.Event
    pause: float = PAUSE

    def connect(self) -> socket.socket:
        return wire.connect(self.port, self.source)

    def hold(self, first: bytes, *, times: int) -> None:
        """Open connections, send something on each, and keep them open."""
        with ExitStack() as stack:
            for _ in range(times):
                with suppress(OSError):
                    sock = stack.enter_context(self.connect())
                    sock.sendall(first)
            self.over.wait()

    def again(self, data: bytes) -> None:
        """Connect, send and close, over and over."""
        while not self.over.wait(self.pause):
            with suppress(OSError), self.connect() as sock:
                sock.settimeout(0.2)
                sock.sendall(data)
                sock.recv(1024)

    def associated(self, source: str = "") -> AbstractContextManager[socket.socket]:
        """Associate as the good peer does."""
        return wire.associated(self.port, CALLING, CALLED, CONTEXTS, source or self.source)

    @property
    def sources(self) -> tuple[str, ...]:
        """All addresses that it has."""
        return (OWN,) if self.source == OWN else OTHERS

    def inside(self, act: Callable[[socket.socket], None]) -> None:
        """Do something inside an association, over and over."""
        while not self.over.wait(self.pause):
            with suppress(OSError), self.associated() as sock:
                act(sock)


def silent(attack: Attack) -> None:
    attack.hold(b"", times=60)


def stalled_in_mid_pdu(attack: Attack) -> None:
    attack.hold(wire.associate(CALLING, CALLED, CONTEXTS)[:60], times=60)


def four_gigabytes_claimed(attack: Attack) -> None:
    attack.again(b"\x01\x00\xff\xff\xff\xff" + bytes(100_000))


def four_gigabytes_claimed_inside(attack: Attack) -> None:
    def act(sock: socket.socket) -> None:
        sock.sendall(b"\x04\x00\xff\xff\xff\xff" + bytes(100_000))
        wire.read(sock)

    attack.inside(act)


def one_byte_a_second(attack: Attack) -> None:
    request = wire.associate(CALLING, CALLED, CONTEXTS)
    with ExitStack() as stack:
        held = [stack.enter_context(attack.connect()) for _ in range(12)]
        for place in range(len(request)):
            for sock in held:
                with suppress(OSError):
                    sock.sendall(request[place : place + 1])
            if attack.over.wait(1):
                return


def garbage(attack: Attack) -> None:
    attack.again(bytes([0x09]) + os.urandom(50_000))


def http(attack: Attack) -> None:
    attack.again(b"GET / HTTP/1.1\r\nHost: pacs\r\nUser-Agent: probe\r\n\r\n")


def requests_that_cannot_be_read(attack: Attack) -> None:
    request = wire.associate(CALLING, CALLED, CONTEXTS)
    attack.again(request[:76] + b"\xff\xff" + request[78:])


def three_hundred_contexts(attack: Attack) -> None:
    contexts = [(2 * (number % 128) + 1, CT, wire.EXPLICIT) for number in range(300)]
    attack.again(wire.associate(CALLING, CALLED, contexts))


def a_burst_of_connects(attack: Attack) -> None:
    while not attack.over.wait(1 / RATE):
        with suppress(OSError):
            attack.connect().close()


def idle_associations(attack: Attack) -> None:
    """Whoever was made to give way comes again: there is never a free seat."""
    held: deque[ExitStack] = deque()
    for source in cycle(attack.sources):
        if attack.over.wait(PAUSE):
            break
        with suppress(OSError):
            one = ExitStack()
            one.enter_context(attack.associated(source))
            held.append(one)
        if len(held) > IDLE:
            held.popleft().close()
    for one in held:
        one.close()


def endless_command(attack: Attack) -> None:
    def act(sock: socket.socket) -> None:
        while not attack.over.is_set():
            sock.sendall(wire.values(3, wire.COMMAND, bytes(16_000)))

    attack.inside(act)


def endless_data_set(attack: Attack) -> None:
    start = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance="1.2.3")

    def act(sock: socket.socket) -> None:
        sock.sendall(wire.values(3, wire.COMMAND | wire.LAST, start))
        while not attack.over.is_set():
            sock.sendall(wire.values(3, 0, bytes(100_000)))

    attack.inside(act)


def data_set_without_command(attack: Attack) -> None:
    attack.inside(lambda sock: sock.sendall(wire.values(3, 0, bytes(100_000)) * 20))


def messages_that_nobody_waits_for(attack: Attack) -> None:
    one = wire.command(0x0030, data_set=False, sop_class=wire.VERIFICATION)
    many = wire.values(1, wire.COMMAND | wire.LAST, one) * 5_000
    attack.inside(lambda sock: sock.sendall(many))


def paths_for_uids(attack: Attack) -> None:
    uid = "../../../../tmp/pwned"
    start = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance=uid)

    def act(sock: socket.socket) -> None:
        sock.sendall(wire.values(3, wire.COMMAND | wire.LAST, start))
        sock.sendall(wire.values(3, wire.LAST, bytes(100)))
        wire.read(sock)

    attack.inside(act)


def aborted_in_mid_data_set(attack: Attack) -> None:
    start = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance="1.2.3")

    def act(sock: socket.socket) -> None:
        sock.sendall(wire.values(3, wire.COMMAND | wire.LAST, start))
        sock.sendall(wire.values(3, 0, bytes(100_000)))
        sock.sendall(wire.pdu(0x07, bytes(4)))

    attack.inside(act)


def half_a_handshake(attack: Attack) -> None:
    attack.hold(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40), times=60)


def handshakes_without_a_word(attack: Attack) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        for _ in range(60):
            with suppress(OSError):
                stack.enter_context(context.wrap_socket(attack.connect()))
        attack.over.wait()


TLS_ATTACKS = (silent, half_a_handshake, handshakes_without_a_word, garbage, http)
ATTACKS = (
    silent,
    stalled_in_mid_pdu,
    four_gigabytes_claimed,
    four_gigabytes_claimed_inside,
    one_byte_a_second,
    garbage,
    http,
    requests_that_cannot_be_read,
    three_hundred_contexts,
    a_burst_of_connects,
    idle_associations,
    endless_command,
    endless_data_set,
    data_set_without_command,
    messages_that_nobody_waits_for,
    paths_for_uids,
    aborted_in_mid_data_set,
)


# ---------------------------------------------------------------------- what must hold


def _attacked(
    listener: Victim, attack: Callable[[Attack], None], source: str, seconds: float
) -> None:
    memory = listener.process.memory_info().rss
    over = threading.Event()
    attacker = threading.Thread(target=attack, args=(Attack(listener.port, source, over),))
    attacker.start()
    took, most = [], memory
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            listener.echo()
            took.append(time.monotonic() - began)
            most = max(most, listener.process.memory_info().rss)
            time.sleep(0.02)
    finally:
        over.set()
        attacker.join()
    listener.echo()  # nobody is locked out
    assert statistics.quantiles(took, n=20)[-1] < SLOWEST
    assert most - memory < MEMORY
    until = time.monotonic() + 8
    while not listener.is_calm():
        assert time.monotonic() < until, listener.process.as_dict(["num_threads", "num_fds"])
        time.sleep(0.05)
    assert [*(listener.spool / "tmp").iterdir()] == []


@pytest.mark.parametrize("source", [OWN, OTHER])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)
def test_a_good_peer_is_answered_whatever_others_do(
    listener: Victim, attack: Callable[[Attack], None], source: str
) -> None:
    # It takes a moment until the crowd has every seat.
    _attacked(listener, attack, source, 4 if attack is idle_associations else SECONDS)


@pytest.mark.parametrize("source", [OWN, OTHER])
@pytest.mark.parametrize("attack", TLS_ATTACKS, ids=lambda one: one.__name__)
def test_a_good_peer_with_tls_is_answered_whatever_others_do(
    secured: Victim, attack: Callable[[Attack], None], source: str
) -> None:
    _attacked(secured, attack, source, SECONDS)


@pytest.mark.soak
@pytest.mark.parametrize("source", [OWN, OTHER])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)
def test_a_good_peer_is_answered_for_a_minute(
    listener: Victim, attack: Callable[[Attack], None], source: str
) -> None:
    _attacked(listener, attack, source, 60)


def _together(
    attacks: Sequence[Callable[[Attack], None]], sources: Sequence[str]
) -> Callable[[Attack], None]:
    """Return one attack of many: each in a thread of its own, from one of the sources in turn."""

    def everything(attack: Attack) -> None:
        # Beside the good peer in one interpreter: each rests longer.
        attackers = [
            threading.Thread(target=one, args=(Attack(attack.port, source, attack.over, 0.1),))
            for one, source in zip(attacks, cycle(sources), strict=False)
        ]
        for one in attackers:
            one.start()
        for one in attackers:
            one.join()

    return everything


def test_all_attacks_together_keep_nobody_out(listener: Victim) -> None:
    _attacked(listener, _together(ATTACKS, OTHERS[:2]), OTHER, 4)


def test_those_that_say_too_little_keep_nobody_out_beyond_their_deadline(listener: Victim) -> None:
    """From both addresses; after 10 s the listener itself closes who was silent from the start."""
    slow = (silent, stalled_in_mid_pdu, one_byte_a_second)
    attacks = [one for one in slow for _ in (OWN, OTHER)]
    _attacked(listener, _together(attacks, (OWN, OTHER)), OWN, door.Limits(1, 1, 1).idle + 2)


def test_two_thousand_connects_in_ten_seconds_keep_nobody_out(listener: Victim) -> None:
    made: Counter[str] = Counter()

    def burst(attack: Attack) -> None:
        began = time.monotonic()
        for number, source in enumerate(cycle((OWN, OTHER))):
            if attack.over.wait(max(0.0, began + number / RATE - time.monotonic())):
                return
            wire.connect(attack.port, source).close()
            made[source] += 1

    _attacked(listener, burst, OTHER, 10)
    assert made.total() >= 0.95 * 10 * RATE
    assert made[OTHER] >= 0.95 * 5 * RATE
