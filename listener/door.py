"""Who may stand at the door, who may sit, and who goes first when it is full.

A connection *waits* from accept until its A-ASSOCIATE-RQ is whole and judged; then it is *seated*, as an
association. Waiting costs no thread: one thread, the :class:`Porch`, watches all who wait. When there is
no more room,

- who waits longest leaves for who comes (a silent connection never keeps a speaking one out);
- who waits never takes the place of who is seated: some places to wait stay free at every address;
- a peer that asks for a seat while its own address has all it may have gets that of the association there
  that has been idle longest; while the listener has none left, that of the address with the most of them.
  No message that is under way is cut off, unless it hardly goes on;
- otherwise the answer is an honest *local limit exceeded* for now (PS3.8 section 9.3.4).
"""

from __future__ import annotations

import logging
import queue
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from listener.tls import HANDSHAKE, Tls, tell_failed
from pacs_ai.certificates import Pair

log = logging.getLogger(__name__)

A_ASSOCIATE_RQ = 0x01
HEADER = 6
RESERVE = 4
"""Places to wait at one address that associations never take."""

GRACE = 0.5
BURST = 4
"""A burst of connections may exceed the limits so many times for so many seconds."""

SLOW = 60.0
"""Seconds after which a message under way has to have come at a rate..."""
SLOWEST = 1024
"""... of so many bytes a second; a modem does more."""

PIECES = 256
"""So often a connection is read at once, however little comes each time."""
FED = 4096
"""So much of a connection TLS sees at once: 180 records that carry one byte, or new keys and nothing."""

_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02"  # A-ABORT by the provider (PS3.8 section 9.3.8)
_UNRECOGNISED, _UNEXPECTED, _INVALID = b"\x01", b"\x02", b"\x06"
_TICK = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one listener process; times in seconds, sizes in bytes."""

    connections: int
    associations: int
    per_address: int
    idle: float = 10.0
    """A PDU that has begun, or is due, may pause this long."""
    whole: float = 30.0
    """A PDU is whole after this long, however steadily it drips."""
    request: int = 256 * 1024
    """The longest A-ASSOCIATE-RQ: 128 presentation contexts need a fifth of it."""


@dataclass(eq=False, slots=True)
class Connection:
    """One connection of a peer, from accept to close."""

    socket: socket.socket | Tls
    address: str
    client_address: tuple[str, int]
    request: bytearray = field(default_factory=bytearray)
    """What came of the A-ASSOCIATE-RQ; the association begins by reading it."""
    shaking: bool = False
    """The TLS handshake is not over."""
    opened: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    begun: float | None = None
    """When the DIMSE message under way began; None between messages."""
    size: int = 0
    """Bytes of its data set so far."""
    ours: bool = False
    """It is waited for us: for the disk, or the answer."""
    give_way: Callable[[], None] | None = None
    """Ends the association that has taken the connection over; None while it waits on the porch."""

    def cut(self) -> None:
        """End the connection under whoever reads it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def can_go(self, pause: float) -> bool:
        """Tell whether nothing is lost with it: no message is under way, or one that hardly goes on.

        Otherwise a peer that sends a byte now and then would have its seat for ever.
        """
        if self.begun is None:
            return True
        now = time.monotonic()
        lasted = now - self.begun
        slow = now - self.heard > pause or (lasted > SLOW and self.size < lasted * SLOWEST)
        return slow and not self.ours


class Door:
    """Counts connections from accept to close, in total and by address.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._waiting: dict[Connection, None] = {}  # in the order they came
        self._seated: set[Connection] = set()
        self._leaving: dict[Connection, float] = {}

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._waiting) + len(self._seated) + len(self._leaving)

    def enter(self, connection: Connection) -> None:
        """Let a connection wait."""
        with self._lock:
            self._waiting[connection] = None

    def surplus(self) -> list[Connection]:
        """Return who waits and has to go, longest silent first; they no longer count.

        A burst is let in for a moment, up to :data:`BURST` times the limits: who came with it may be about
        to speak.
        """
        with self._lock:
            gone = []
            while (one := self._in_the_way()) is not None:
                del self._waiting[one]
                gone.append(one)
            return gone

    def seat(self, connection: Connection) -> tuple[bool, Connection | None]:
        """Seat a connection; return whether it sits, and who has to go for it."""
        with self._lock:
            if connection not in self._waiting:
                return False, None
            here = [one for one in self._seated if one.address == connection.address]
            gone = None
            if (own := len(here) >= self._limits.per_address) or self._is_full():
                gone = self._idlest(here if own else self._seated)
                if gone is None:
                    return False, None
                self._seated.remove(gone)
                self._leaving[gone] = time.monotonic()
            del self._waiting[connection]
            self._seated.add(connection)
            return True, gone

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed; safe to call twice."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._seated.discard(connection)
            self._leaving.pop(connection, None)

    def lingering(self) -> list[Connection]:
        """Return who gave way a while ago and is still here: in mid PDU nobody hears that it is to go."""
        limit = time.monotonic() - GRACE
        with self._lock:
            return [one for one, since in self._leaving.items() if since < limit]

    def _is_full(self) -> bool:
        return len(self._seated) >= self._limits.associations

    def _idlest(self, seated: Collection[Connection]) -> Connection | None:
        """Return who gives way: of the address with the most seats, among those that have one who can go."""
        seats = Counter(one.address for one in seated)
        idle = [one for one in seated if one.can_go(self._limits.whole)]
        return min(
            idle,
            key=lambda one: (one.begun is not None, -seats[one.address], one.heard),
            default=None,
        )

    def _in_the_way(self) -> Connection | None:
        waiting = Counter(one.address for one in self._waiting)
        seated = Counter(one.address for one in self._seated)
        for address, count in waiting.items():
            room = max(self._limits.per_address - seated[address], RESERVE)
            if count > room and (one := self._first(address, at_once=count > BURST * room)):
                return one
        room = max(self._limits.connections - len(self._seated), RESERVE)
        if len(self._waiting) > room:
            # The address that crowds the door most gives way, not whoever happens to stand there.
            ((most, _),) = waiting.most_common(1)
            return self._first(most, at_once=len(self._waiting) > BURST * room)
        return None

    def _first(self, address: str, *, at_once: bool) -> Connection | None:
        here = [one for one in self._waiting if one.address == address]
        # Whose request is being judged goes last.
        one = next((one for one in here if one.give_way is None), here[0])
        return one if at_once or time.monotonic() - one.opened > GRACE else None


class Porch(threading.Thread):
    """Watches connections that wait until each has sent its A-ASSOCIATE-RQ, in one thread.

    With TLS a connection shakes hands here too: a silent one costs a place to wait and nothing more.

    Parameters
    ----------
    door : Door
    limits : Limits
    begin : callable
        Takes a connection whose A-ASSOCIATE-RQ is whole.
    tls : Pair or None
        What the listener shows; without it, plain DICOM.
    """

    def __init__(
        self,
        door: Door,
        limits: Limits,
        begin: Callable[[Connection], None],
        tls: Pair | None = None,
    ) -> None:
        super().__init__(name="porch", daemon=True)
        self._door = door
        self._limits = limits
        self._begin = begin
        self._tls = tls
        self._selector = selectors.DefaultSelector()
        self._arrived: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._ear.settimeout(0)
        self._bell.settimeout(0)
        self._over = False
        self.looked = time.monotonic()
        """When it last went round."""

    def admit(self, sock: socket.socket, client_address: tuple[str, int]) -> None:
        """Take over a connection that was just accepted."""
        self._arrived.put(Connection(sock, client_address[0], client_address))
        self._ring()

    def stop(self) -> None:
        """Close everything that waits here, and end the thread."""
        self._over = True
        self._ring()
        self.join()

    def run(self) -> None:
        """Watch until stopped."""
        self._selector.register(self._ear, selectors.EVENT_READ)
        while not self._over:
            self._listen(_TICK)
            self._welcome()
            if time.monotonic() - self.looked >= _TICK:
                self.looked = time.monotonic()
                self._send_late_ones_away(self.looked)
                for gone in self._door.surplus():
                    self._make_way(gone)
                for gone in self._door.lingering():
                    gone.cut()
        self._welcome()
        for connection in self._here():
            self._close(connection)
        self._selector.close()
        self._bell.close()
        self._ear.close()

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._ear:
                with suppress(BlockingIOError):
                    self._ear.recv(4096)
            else:
                self._read(key.data)

    def _ring(self) -> None:
        with suppress(OSError):  # full: the bell rings already; closed: nobody listens any more
            self._bell.send(b"\x00")

    def _here(self) -> list[Connection]:
        return [key.data for key in self._selector.get_map().values() if key.data is not None]

    def _welcome(self) -> None:
        with suppress(queue.Empty):
            while True:
                connection = self._arrived.get_nowait()
                self._prepare(connection)
                self._door.enter(connection)
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
                for gone in self._door.surplus():
                    self._make_way(gone)

    def _prepare(self, connection: Connection) -> None:
        accepted = cast("socket.socket", connection.socket)
        if self._tls is None:
            accepted.settimeout(0)
        else:
            connection.socket = Tls(accepted, self._tls.context)
            connection.shaking = True

    def _make_way(self, gone: Connection) -> None:
        log.info("a connection without A-ASSOCIATE-RQ gave way to a newer one")
        if gone.give_way is None:
            self._close(gone)
        else:
            gone.give_way()

    def _send_late_ones_away(self, now: float) -> None:
        for one in self._here():
            whole = HANDSHAKE if one.shaking else self._limits.whole
            if now - one.heard > self._limits.idle or now - one.opened > whole:
                self._close(one)

    def _read(self, connection: Connection) -> None:
        """Take what came, once from the network, and judge it; others wait."""
        try:
            if isinstance(connection.socket, Tls):
                connection.socket.feed(FED)
                if connection.shaking:
                    connection.socket.shake()
                    connection.shaking = False
            for _ in range(PIECES):
                if not self._take(connection, connection.socket.recv(self._missing(connection))):
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            if connection.shaking:
                tell_failed(error, connection.address)
            self._close(connection)

    def _take(self, connection: Connection, data: bytes) -> bool:
        """Take a piece of the A-ASSOCIATE-RQ; tell whether more of it may come."""
        if not data:
            self._close(connection)
            return False
        connection.request += data
        connection.heard = time.monotonic()
        reason = self._wrong(connection)
        if reason is not None:
            with suppress(OSError):
                connection.socket.send(memoryview(_ABORT + reason))
            self._close(connection)
            return False
        if self._missing(connection):
            return True
        self._selector.unregister(connection.socket)
        self._begin(connection)
        return False

    def _wrong(self, connection: Connection) -> bytes | None:
        """Return the reason for an A-ABORT: nothing but an A-ASSOCIATE-RQ may come first."""
        kind = connection.request[0]
        if kind != A_ASSOCIATE_RQ:
            return _UNEXPECTED if 0x02 <= kind <= 0x07 else _UNRECOGNISED
        if len(connection.request) >= HEADER and self._length(connection) > self._limits.request:
            return _INVALID
        return None

    def _missing(self, connection: Connection) -> int:
        if len(connection.request) < HEADER:
            return HEADER - len(connection.request)
        return HEADER + self._length(connection) - len(connection.request)

    @staticmethod
    def _length(connection: Connection) -> int:
        return int.from_bytes(connection.request[2:HEADER], "big")

    def _close(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        self._door.leave(connection)
        connection.socket.close()
