"""PDUs have an allowed length and a time; DIMSE messages are answered in order, by their reader."""

from __future__ import annotations

import errno
import inspect
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import cast

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from listener import door, transport
from listener.dimse import Request
from listener.door import Limits
from listener.transport import Server, UpperLayer, make_server
from pacs_ai.certificates import Pair
from pacs_ai.errors import ConfigError
from tests.authority import Authority, Certificate
from tests.integration import wire
from tests.new_keys import Client
from tests.peers import require

CT = "1.2.840.10008.5.1.4.1.1.2"
CONTEXTS = [(1, wire.VERIFICATION, wire.IMPLICIT), (3, CT, wire.EXPLICIT)]
MAXIMUM_PDU = 16_384
MAXIMUM_OBJECT = 1_000
LIMITS = Limits(connections=8, associations=4, per_address=4, idle=0.3, whole=0.8)
STORE = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance="1.2.3")
ECHO = wire.command(0x0030, data_set=False, sop_class=wire.VERIFICATION)
KEYS = 200_000
"""New keys that keep OpenSSL busy for more than a second."""
WHOLE_COMMAND = wire.COMMAND | wire.LAST
ECHO_VALUE = wire.values(1, WHOLE_COMMAND, ECHO)[6:]


@dataclass
class Reception:
    """Keeps what came; it has room for every other piece."""

    pieces: list[bytearray] = field(default_factory=list)
    ended: str = ""
    had_room: bool = False

    def room(self, size: int) -> memoryview | None:
        self.had_room = not self.had_room
        if not self.had_room:
            return None
        self.pieces.append(bytearray(size))
        return memoryview(self.pieces[-1])

    def write(self, view: memoryview) -> None:
        self.pieces.append(bytearray(view))

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def finish(self) -> Dataset | int:
        self.ended = "finished"
        return 0x0000

    def discard(self) -> None:
        self.ended = self.ended or "discarded"


@dataclass
class Listening:
    """A hardened server with short times, and what it received."""

    server: Server
    received: list[Reception]
    tls: ssl.SSLContext | None

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def associated(self) -> AbstractContextManager[socket.socket]:
        return wire.associated(self.port, "PEER", "PACSAI", CONTEXTS, tls=self.tls)

    def wait_empty(self) -> None:
        """Wait until no connection and no thread of one is left."""
        until = time.monotonic() + 5
        while len(self.server.door) or self.server.active_associations:
            assert time.monotonic() < until, "a connection is still counted"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Certificate]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return authority, authority.issue("gateway")


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture(params=["plain", "tls"])
def listening(
    monkeypatch: pytest.MonkeyPatch,
    certificate: tuple[Authority, Certificate],
    limits: Limits,
    request: pytest.FixtureRequest,
) -> Iterator[Listening]:
    """A server with and without TLS: what holds for PDUs holds for both."""
    authority, own = certificate
    secured = request.param == "tls"
    monkeypatch.setattr(_config, "ENFORCE_UID_CONFORMANCE", True)
    received: list[Reception] = []

    def receive(association: Association) -> Callable[[Request, str], Reception]:
        def begin(request: Request, syntax: str) -> Reception:
            received.append(Reception())
            return received[-1]

        return begin

    entity = AE("PACSAI")
    entity.maximum_pdu_size = MAXIMUM_PDU
    entity.add_supported_context(wire.VERIFICATION)
    entity.add_supported_context(CT, wire.EXPLICIT)
    server = make_server(
        entity,
        ("127.0.0.1", 0),
        limits=limits,
        maximum_object=MAXIMUM_OBJECT,
        receive=receive,
        tls=Pair(own.file, own.key) if secured else None,
        evt_handlers=[],
    )
    asking = ssl.create_default_context(cafile=authority.file) if secured else None
    made = Listening(server, received, asking)
    yield made
    server.shutdown()
    made.wait_empty()


def _ends(peer: socket.socket) -> tuple[int, ...]:
    """Read until the listener closes; return the types of the PDUs that came."""
    kinds = []
    try:
        while True:
            kinds.append(wire.read(peer)[0])
    except ConnectionError:
        return tuple(kinds)


# ---------------------------------------------------------------------- what is taken


def test_a_data_set_in_many_fragments_arrives_whole(listening: Listening) -> None:
    with listening.associated() as peer:
        half = len(STORE) // 2
        peer.sendall(wire.values(3, wire.COMMAND, STORE[:half]))
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE[half:]))
        for piece in (b"abc", b"def", b"g"):
            peer.sendall(wire.values(3, 0, piece))
        peer.sendall(wire.values(3, wire.LAST, b""))
        assert wire.status(wire.read(peer)[1]) == 0x0000
    (one,) = listening.received
    assert (bytes(one.data), one.ended) == (b"abcdefg", "finished")


def test_messages_that_come_at_once_are_answered_in_their_order(listening: Listening) -> None:
    echo = wire.values(1, WHOLE_COMMAND, ECHO)
    store = wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, wire.LAST, b"abc")
    with listening.associated() as peer:
        peer.sendall((echo + store) * 20)
        kinds = [wire.read(peer)[1] for _ in range(40)]
    contexts = [body[4] for body in kinds]
    assert contexts == [1, 3] * 20
    assert [wire.status(body) for body in kinds] == [0x0000] * 40


@pytest.mark.parametrize("listening", ["tls"], indirect=True)
def test_new_keys_between_messages_are_no_pdu(listening: Listening) -> None:
    """OpenSSL's client updates its keys, and says nothing else for longer than a PDU may pause."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{listening.port}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        request = wire.associate("PEER", "PACSAI", CONTEXTS)
        for said in (request, b"K\n", wire.values(1, WHOLE_COMMAND, ECHO), b""):
            client.stdin.write(said)  # the client obeys a command where a piece of input begins
            client.stdin.flush()
            time.sleep(2 * LIMITS.idle)
        client.kill()
        assert wire.status(client.stdout.read()) == 0x0000


def test_several_messages_in_one_pdu_are_answered(listening: Listening) -> None:
    value = wire.values(1, WHOLE_COMMAND, ECHO)[6:]
    with listening.associated() as peer:
        peer.sendall(wire.pdu(0x04, value * 3))
        assert [wire.status(wire.read(peer)[1]) for _ in range(3)] == [0x0000] * 3


def test_a_release_is_answered(listening: Listening) -> None:
    wire.echo(listening.port, "PEER", "PACSAI", listening.tls)
    listening.wait_empty()


@pytest.mark.parametrize("offset", range(1, 15))
def test_a_fragment_whose_heads_come_in_two_segments_arrives_whole(
    listening: Listening, offset: int
) -> None:
    fragment = wire.values(3, 0, b"def")
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
        for _ in range(2):
            time.sleep(0.02)
            peer.sendall(fragment[:offset])
            time.sleep(0.02)
            peer.sendall(fragment[offset:])
        peer.sendall(wire.values(3, wire.LAST, b"g"))
        assert wire.status(wire.read(peer)[1]) == 0x0000
    (one,) = listening.received
    assert (bytes(one.data), one.ended) == (b"abcdefdefg", "finished")


def test_two_values_in_one_pdu_arrive_whole_in_mid_data_set(listening: Listening) -> None:
    two = wire.values(3, 0, b"def")[6:] + wire.values(3, 0, b"ghi")[6:]
    end = wire.values(3, wire.LAST, b"j")[6:] + wire.values(1, WHOLE_COMMAND, ECHO)[6:]
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        peer.sendall(wire.values(3, 0, b"abc") + wire.pdu(0x04, two) + wire.values(3, 0, b"klm"))
        peer.sendall(wire.pdu(0x04, end))
        assert [wire.read(peer)[1][4] for _ in range(2)] == [3, 1]
    (one,) = listening.received
    assert (bytes(one.data), one.ended) == (b"abcdefghiklmj", "finished")


def test_a_release_in_the_segment_of_the_last_fragment_is_answered(listening: Listening) -> None:
    store = wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc")
    with listening.associated() as peer:
        peer.sendall(store + wire.values(3, wire.LAST, b"def") + wire.pdu(0x05, bytes(4)))
        kind, body = wire.read(peer)
        assert (kind, wire.status(body)) == (0x04, 0x0000)
        assert wire.read(peer)[0] == 0x06
    listening.wait_empty()
    assert bytes(listening.received[0].data) == b"abcdef"


# ---------------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    "data",
    [
        wire.values(3, wire.COMMAND, bytes(MAXIMUM_PDU - 6)) * 5,
        wire.values(3, 0, b"abc"),
        wire.values(3, WHOLE_COMMAND, b"no command set"),
        wire.values(3, WHOLE_COMMAND, STORE) * 2,
        wire.values(5, WHOLE_COMMAND, STORE),
        wire.values(3, WHOLE_COMMAND, STORE) + wire.values(1, 0, b"abc"),
        wire.values(1, WHOLE_COMMAND, wire.command(0x0020, data_set=True, sop_class=CT)),
        wire.pdu(0x04, b"\x00\x00\x00\xff\x03\x00abc"),
        wire.pdu(0x04, b"\x00\x00"),
        wire.pdu(0x04, bytes(MAXIMUM_PDU + 7)),
        b"\x04\x00\xff\xff\xff\xff",
        wire.pdu(0x55, b"abcd"),
        wire.values(3, WHOLE_COMMAND, STORE)
        + wire.values(3, 0, b"abc")
        + wire.values(1, 0, b"abc"),
        wire.values(3, WHOLE_COMMAND, STORE)
        + wire.values(3, 0, b"abc")
        + wire.values(3, 0, bytes(MAXIMUM_PDU + 1)),
    ],
    ids=[
        "endless command",
        "data set without command",
        "unreadable command",
        "command inside a data set",
        "context that was not accepted",
        "data set in another context",
        "C-FIND",
        "value longer than its PDU",
        "value cut off",
        "PDU longer than negotiated",
        "4 GB claimed",
        "unknown PDU",
        "second fragment in another context",
        "second fragment longer than negotiated",
    ],
)
def test_what_breaks_the_protocol_is_aborted(listening: Listening, data: bytes) -> None:
    with listening.associated() as peer:
        peer.sendall(data)
        assert _ends(peer) == (wire.ABORTED,)
    listening.wait_empty()
    assert all(one.ended == "discarded" for one in listening.received)


def test_a_data_set_without_end_is_aborted(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "DRAINED", 50_000)
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        with pytest.raises(OSError):
            while True:
                peer.sendall(wire.values(3, 0, bytes(10_000)))
    listening.wait_empty()
    (one,) = listening.received
    assert one.ended == "discarded"
    assert len(one.data) <= MAXIMUM_OBJECT + 50_000


def test_an_abort_in_mid_data_set_leaves_nothing(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
        peer.sendall(wire.pdu(0x07, bytes(4)))
        assert _ends(peer) == ()
    listening.wait_empty()
    assert [one.ended for one in listening.received] == ["discarded"]


def test_who_takes_no_answer_is_waited_for_once_and_not_for_every_message(
    listening: Listening,
) -> None:
    value = ECHO_VALUE * (MAXIMUM_PDU // len(ECHO_VALUE))
    with listening.associated() as peer:
        peer.settimeout(1)
        with suppress(OSError):  # until nothing more is taken
            for _ in range(20_000):
                peer.sendall(wire.pdu(0x04, value))
        listening.wait_empty()


@pytest.mark.parametrize("limits", [replace(LIMITS, idle=20, whole=20)], ids=["patient"])
@pytest.mark.parametrize("listening", ["plain"], indirect=True)
def test_who_is_to_give_way_in_mid_pdu_goes_all_the_same(listening: Listening) -> None:
    dripping = [listening.associated() for _ in range(LIMITS.per_address)]
    peers = [one.__enter__() for one in dripping]
    for one in peers:
        one.sendall(wire.values(1, WHOLE_COMMAND, ECHO)[:3])
    until = time.monotonic() + 5
    with listening.associated() as late:  # one of them gave way
        while len(listening.server.active_associations) > LIMITS.per_address:
            assert time.monotonic() < until, "it lives on, and nobody counts it"
            time.sleep(0.02)
        late.sendall(wire.values(1, WHOLE_COMMAND, ECHO))
        assert wire.status(wire.read(late)[1]) == 0x0000
    for context in dripping:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("control", [wire.COMMAND, 0])
def test_empty_fragments_keep_no_message_under_way(listening: Listening, control: int) -> None:
    with listening.associated() as peer:
        if not control:
            peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        peer.sendall(wire.values(3, control, b""))
        assert _ends(peer) == (wire.ABORTED,)


def test_an_instance_that_cannot_be_forgotten_keeps_no_seat(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: Reception) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Reception, "discard", refuses)
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
    listening.wait_empty()


def test_an_association_without_a_thread_keeps_no_seat(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: UpperLayer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(UpperLayer, "start", none_left)
        with pytest.raises(ConnectionError), listening.associated():
            pass
        listening.wait_empty()
    with listening.associated():
        pass


def test_a_request_may_be_longer_than_any_pdu_after_it(listening: Listening) -> None:
    unknown = "1.2.3." + "4" * 58
    contexts = [(2 * number + 1, unknown, unknown) for number in range(127)]
    request = wire.associate("PEER", "PACSAI", [*contexts, (255, CT, wire.EXPLICIT)])
    assert len(request) > MAXIMUM_PDU + 1_000
    with wire.connect(listening.port, tls=listening.tls) as peer:
        peer.sendall(request)
        assert wire.read(peer)[0] == wire.ACCEPTED


ODD_USER_ITEMS = {
    "an unknown sub-item": b"\x5b\0\0\x04abcd",
    "a version name that is too long": b"\x55\0\0\x11" + b"V" * 17,
    "a version name that is no ASCII": b"\x55\0\0\x02\xe9V",
    "a version name padded with NUL": b"\x55\0\0\x04ABC\0",
    "a version name with a backslash": b"\x55\0\0\x03A\\B",
}


@pytest.mark.parametrize("odd", [*ODD_USER_ITEMS, "an unknown item", "titles padded with NUL"])
def test_what_is_odd_in_a_request_and_means_nothing_is_passed_over(
    listening: Listening, odd: str
) -> None:
    request = wire.associate("PEER", "PACSAI", CONTEXTS)[6:]
    if odd in ODD_USER_ITEMS:
        place = request.index(b"\x50\0", 68)
        inner = request[place + 4 :] + ODD_USER_ITEMS[odd]
        request = request[:place] + b"\x50\0" + len(inner).to_bytes(2, "big") + inner
    elif odd == "an unknown item":
        request += b"\x99\0\0\x02ab"
    else:
        request = request[:4] + request[4:36].replace(b" ", b"\0") + request[36:]
    with wire.connect(listening.port, tls=listening.tls) as peer:
        peer.sendall(wire.pdu(0x01, request))
        kind, body = wire.read(peer)
        assert kind == wire.ACCEPTED
        assert body[4:36].split() == [b"PACSAI", b"PEER"]
        peer.sendall(wire.values(1, wire.COMMAND | wire.LAST, ECHO))
        assert wire.status(wire.read(peer)[1]) == 0x0000


def test_an_item_of_a_request_that_is_cut_off_is_aborted(listening: Listening) -> None:
    request = wire.associate("PEER", "PACSAI", CONTEXTS)[6:]
    with wire.connect(listening.port, tls=listening.tls) as peer:
        peer.sendall(wire.pdu(0x01, request[:-2]))
        assert _ends(peer)[0] == wire.ABORTED


def test_more_contexts_than_there_can_be_are_aborted_undecoded(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(UpperLayer, "_decode_pdu", lambda *rest: decoded.append(rest))
    contexts = [(2 * (at % 128) + 1, CT, wire.EXPLICIT) for at in range(129)]
    with wire.connect(listening.port, tls=listening.tls) as peer:
        peer.sendall(wire.associate("PEER", "PACSAI", contexts))
        assert _ends(peer) == (wire.ABORTED,)
    assert decoded == []


@pytest.mark.parametrize("limits", [replace(LIMITS, idle=0.5, whole=1.2)], ids=["slower"])
def test_heads_may_pause_however_slow_the_pdu_before_was(listening: Listening) -> None:
    slow, next_one = wire.values(3, 0, b"abcd"), wire.values(3, wire.LAST, b"ef")
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        for start, end, pause in ((0, 13, 0.45), (13, 14, 0.45), (14, 15, 0.2), (15, 16, 0.01)):
            peer.sendall(slow[start:end])
            time.sleep(pause)
        peer.sendall(next_one[:10])
        time.sleep(0.35)
        peer.sendall(next_one[10:])
        assert wire.status(wire.read(peer)[1]) == 0x0000
    assert bytes(listening.received[0].data) == b"abcdef"


@pytest.mark.parametrize("limits", [replace(LIMITS, idle=5, whole=20)], ids=["patient"])
@pytest.mark.parametrize("fragments", [1, 2, 3, 4])
def test_an_abort_in_mid_data_set_is_heard_at_once(listening: Listening, fragments: int) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc") * fragments)
        time.sleep(0.1)  # all of it is read, and more is waited for
        peer.sendall(wire.pdu(0x07, bytes(4)))
        began = time.monotonic()
        assert _ends(peer) == ()
        assert time.monotonic() - began < 2
    listening.wait_empty()


def test_an_end_in_mid_fragment_leaves_nothing(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
        peer.sendall(wire.values(3, wire.LAST, bytes(100))[:-1])
    listening.wait_empty()
    (one,) = listening.received
    assert (bytes(one.data), one.ended) == (b"abc", "discarded")


# ---------------------------------------------------------------------- times


@pytest.mark.parametrize("short", [1, 100, 107], ids=["end", "fragment", "heads"])
def test_a_fragment_that_stalls_ends_its_association(listening: Listening, short: int) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
        peer.sendall(wire.values(3, wire.LAST, bytes(100))[:-short])
        began = time.monotonic()
        _ends(peer)
        assert LIMITS.idle <= time.monotonic() - began < LIMITS.idle + 2
    listening.wait_empty()
    (one,) = listening.received
    assert (bytes(one.data), one.ended) == (b"abc", "discarded")


def _drips_to_the_end(peer: socket.socket) -> None:
    began = time.monotonic()
    with pytest.raises(OSError):
        for _ in range(100):
            peer.sendall(b"\x00")
            time.sleep(LIMITS.idle / 3)
    assert LIMITS.whole / 2 < time.monotonic() - began < LIMITS.whole + 2


def test_a_fragment_that_drips_ends_its_association(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc"))
        peer.sendall(wire.values(3, wire.LAST, bytes(100))[:12])
        _drips_to_the_end(peer)


def test_a_pause_between_fragments_is_allowed(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        for piece in (b"abc", b"def", b"ghi"):
            peer.sendall(wire.values(3, 0, piece))
            time.sleep(2 * LIMITS.idle)
        peer.sendall(wire.values(3, wire.LAST, b"j"))
        assert wire.status(wire.read(peer)[1]) == 0x0000
    assert bytes(listening.received[0].data) == b"abcdefghij"


def test_an_association_that_waits_for_a_fragment_can_be_ended(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, 0, b"abc") * 3)
        time.sleep(0.1)
        (association,) = listening.server.active_associations
        began = time.monotonic()
        association.abort(block=False)
        assert _ends(peer) == (wire.ABORTED,)
        assert time.monotonic() - began < LIMITS.idle + 1
    listening.wait_empty()


def test_the_network_time_out_counts_from_what_came_last(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE))
        (association,) = listening.server.active_associations
        association.network_timeout = 0.6
        for _ in range(6):
            peer.sendall(wire.values(3, 0, b"abc"))
            time.sleep(0.2)
        last = time.monotonic()
        assert _ends(peer) == (wire.ABORTED,)
        assert 0.2 < time.monotonic() - last < 3
    listening.wait_empty()


def test_a_pdu_that_stalls_ends_its_association(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE)[:-5])
        began = time.monotonic()
        _ends(peer)
        assert LIMITS.idle <= time.monotonic() - began < LIMITS.idle + 2


def test_a_pdu_that_drips_ends_its_association(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(b"\x04\x00\x00\x00\x10\x00")
        _drips_to_the_end(peer)


def test_a_peer_that_reads_no_answers_is_given_up(listening: Listening) -> None:
    # Short buffers, or the kernel keeps tens of thousands of answers.
    listening.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with listening.associated() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(LIMITS.whole + 4)
        with pytest.raises(OSError):
            while True:
                peer.sendall(wire.values(1, WHOLE_COMMAND, ECHO) * 1_000)
    listening.wait_empty()


def test_a_pause_between_messages_is_allowed(listening: Listening) -> None:
    with listening.associated() as peer:
        time.sleep(LIMITS.whole + 0.2)
        peer.sendall(wire.values(1, WHOLE_COMMAND, ECHO))
        assert wire.status(wire.read(peer)[1]) == 0x0000


HALF_A_PDU = wire.associate("PEER", "PACSAI", CONTEXTS) + b"\x04\0"


@pytest.mark.parametrize("listening", ["tls"], indirect=True)
@pytest.mark.parametrize("limits", [replace(LIMITS, idle=30, whole=60)], ids=["patient"])
@pytest.mark.parametrize(
    ("said", "answered"),
    [(b"", False), (b"", True), (HALF_A_PDU, False)],
    ids=["silent", "silent but for answers", "in mid PDU"],
)
def test_who_sends_nothing_but_new_keys_holds_nobody(
    listening: Listening, said: bytes, *, answered: bool
) -> None:
    client = Client(listening.port)
    client.socket.sendall(client.records(said) if said else b"")
    flood = client.new_keys(KEYS, answered=answered)

    def pour() -> None:
        with suppress(OSError):  # who does not take the answers is closed
            client.socket.sendall(flood)

    pouring = threading.Thread(target=pour)
    slowest, start = 0.0, time.monotonic()
    pouring.start()
    while pouring.is_alive():
        began = time.monotonic()
        wire.echo(listening.port, "PEER", "PACSAI", listening.tls)
        slowest = max(slowest, time.monotonic() - began)
    pouring.join()
    client.close()
    # Whoever waits for the flood waits for all of it, however busy the machine is.
    assert slowest < max(1, (time.monotonic() - start) / 2)


@pytest.mark.parametrize("listening", ["tls"], indirect=True)
def test_new_keys_win_no_time_for_a_pdu(listening: Listening) -> None:
    client = Client(listening.port)
    client.socket.sendall(client.records(HALF_A_PDU))
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < began + 10 * LIMITS.whole:
            client.socket.sendall(client.new_keys(1, answered=False))
            time.sleep(LIMITS.idle / 3)
    client.close()
    assert LIMITS.idle < time.monotonic() - began < 2 * LIMITS.whole


# ---------------------------------------------------------------------- seats and threads


def test_the_address_that_has_its_seats_gives_up_its_idlest(listening: Listening) -> None:
    held = [listening.associated() for _ in range(LIMITS.per_address)]
    first, *others = [one.__enter__() for one in held]
    wire.echo(listening.port, "PEER", "PACSAI", listening.tls)
    assert _ends(first) == (wire.ABORTED,)
    for one in others:
        one.sendall(wire.values(1, WHOLE_COMMAND, ECHO))
        assert wire.status(wire.read(one)[1]) == 0x0000
    for context in held:
        context.__exit__(None, None, None)


def test_one_too_many_is_rejected_for_now_while_all_are_busy(listening: Listening) -> None:
    held = [listening.associated() for _ in range(LIMITS.per_address)]
    peers = [one.__enter__() for one in held]
    for one in peers:
        one.sendall(wire.values(3, WHOLE_COMMAND, STORE))
    until = time.monotonic() + 5
    while len(listening.received) < len(peers):
        assert time.monotonic() < until
        time.sleep(0.01)
    with wire.connect(listening.port, tls=listening.tls) as late:
        late.sendall(wire.associate("PEER", "PACSAI", CONTEXTS))
        kind, body = wire.read(late)
    assert (kind, body[1:]) == (wire.REJECTED, bytes([2, 3, 2]))
    for one in peers:
        one.sendall(wire.values(3, wire.LAST, b"abc"))
        assert wire.status(wire.read(one)[1]) == 0x0000
    for context in held:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("limits", [replace(LIMITS, whole=5)], ids=["patient"])
def test_who_sends_a_byte_now_and_then_loses_its_seat_to_who_asks(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "SLOW", 0.5)
    held = [listening.associated() for _ in range(LIMITS.per_address)]
    peers = [one.__enter__() for one in held]
    for one in peers:
        one.sendall(wire.values(3, WHOLE_COMMAND, STORE))
    until = time.monotonic() + 1
    while time.monotonic() < until:
        for one in peers:
            one.sendall(wire.values(3, 0, b"x"))
        time.sleep(0.1)
    wire.echo(listening.port, "PEER", "PACSAI", listening.tls)
    wire.echo(listening.port, "PEER", "PACSAI", listening.tls)
    for context in held:
        context.__exit__(None, None, None)
    listening.wait_empty()


def test_the_size_of_a_message_is_its_own(listening: Listening) -> None:
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, wire.LAST, b"abcd"))
        assert wire.status(wire.read(peer)[1]) == 0x0000
        (association,) = listening.server.active_associations
        connection = cast("UpperLayer", association.dul).connection
        until = time.monotonic() + 5
        while connection.begun is not None:
            assert time.monotonic() < until
        assert (connection.size, connection.ours) == (4, False)
        peer.sendall(wire.values(3, wire.COMMAND, STORE[:10]))
        while connection.begun is None:
            assert time.monotonic() < until
        assert connection.size == 0


def test_what_waits_for_our_disk_keeps_its_seat(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def write(reception: Reception, view: memoryview) -> None:
        (association,) = listening.server.active_associations
        connection = cast("UpperLayer", association.dul).connection
        connection.heard -= 1_000
        seen.append(connection.can_go(LIMITS.whole))
        reception.pieces.append(bytearray(view))

    monkeypatch.setattr(Reception, "room", lambda *_: None)
    monkeypatch.setattr(Reception, "write", write)
    with listening.associated() as peer:
        peer.sendall(wire.values(3, WHOLE_COMMAND, STORE) + wire.values(3, wire.LAST, b"abcd"))
        assert wire.status(wire.read(peer)[1]) == 0x0000
    assert seen == [False]


def test_threads_of_associations_keep_no_process_alive(listening: Listening) -> None:
    before = set(threading.enumerate())
    with listening.associated():
        started = set(threading.enumerate()) - before
        assert len(started) == 2
        assert all(one.daemon for one in started)


# ---------------------------------------------------------------------- the library


def test_an_unknown_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "4.0.0")
    with pytest.raises(ConfigError, match=r"listener\.transport: plain"):
        transport.check_version()


def test_upstream_still_lacks_what_this_module_adds() -> None:
    """When this fails, the library has learnt something: take it out of listener/transport.py."""
    source = inspect.getsource
    read = source(DULServiceProvider._read_pdu_data)
    assert "recv(pdu_length)" in read, "the length of a PDU is checked upstream"
    assert "select.select" in source(AssociationSocket.ready.fget)
    assert "settimeout" not in source(AssociationSocket.recv), "reading has a deadline upstream"
    assert "settimeout" not in source(AssociationSocket.send), "writing has a deadline upstream"
    assert "self.daemon = False" in source(DULServiceProvider.__init__)
    assert "deepcopy" in source(RequestHandler._create_association)
    assert "time.sleep" in source(DULServiceProvider.run_reactor)
    assert AssociationServer.request_queue_size == 5
    assert "dul" not in inspect.signature(Association.__init__).parameters
    assert isinstance(evt.EVT_REQUESTED, evt.NotificationEvent)
