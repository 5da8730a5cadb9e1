"""A connection whose every read and write has a deadline, with TLS or without."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress
from struct import pack
from time import monotonic
from typing import cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from listener.dimse import P_DATA_TF
from listener.door import HEADER, Connection, Limits
from listener.tls import Tls

CONNECTION_CLOSED = "Evt17"
"""PS3.8 section 9.2.1: transport connection closed indication."""

HEADS = 2 * HEADER
"""Bytes of a PDU's head and of the first presentation data value's (PS3.8 sections 9.3.1 and 9.3.5.1)."""

_SHORTEST = 10
"""Bytes of the shortest PDU, A-ABORT (PS3.8 9.3.8): who asks for more waits for what no peer sends."""

_PAUSED = "a PDU paused too long"
_PIECE = 64 * 1024
_NOW, _ALL = int(socket.MSG_DONTWAIT), int(socket.MSG_WAITALL)


class Socket(AssociationSocket):
    """A connection whose every read and write has a deadline."""

    def __init__(self, association: Association, connection: Connection, limits: Limits) -> None:
        self._own = cast("socket.socket", connection.socket)
        super().__init__(association, client_socket=self._own)
        self._tls = connection.socket if isinstance(connection.socket, Tls) else None
        if self._tls is None:
            self._own.settimeout(None)
        self._cut = connection.cut
        self.unread = bytes(connection.request)
        """What was read before a PDU was begun: the A-ASSOCIATE-RQ, then never more than the heads of one."""
        connection.request.clear()
        self._whole = limits.whole
        self._idle = limits.idle
        self._first_pause = min(limits.whole, limits.idle)
        self._ahead = bytearray(_SHORTEST)
        self._over = 0.0
        self._spoke = False
        self._poll = select.poll()  # select() fails above descriptor 1023
        self._poll.register(connection.socket, select.POLLIN)
        self._free = select.poll()
        self._free.register(connection.socket, select.POLLOUT)
        self._ear, self._bell = socket.socketpair()
        self._number, self._ear_number = connection.socket.fileno(), self._ear.fileno()
        self._ear.settimeout(0)
        self._bell.settimeout(0)
        self._either = select.poll()
        self._either.register(connection.socket, select.POLLIN)
        self._either.register(self._ear, select.POLLIN)
        self._pause = 0.0

    @property
    def ready(self) -> bool:
        """Tell whether something can be read."""
        if self.socket is None or not self._is_connected:
            return False
        if self.unread:
            return True
        if self._tls is not None and self._tls.pending and self._has_come(self._tls):
            return True
        return bool(self._poll.poll(0)) and (self._tls is None or self._has_come(self._tls))

    def wait(self, seconds: float) -> bool:
        """Wait until something can be read or the bell rings; tell whether it can be read."""
        if self.unread:
            return True
        if self._tls is not None:
            read_ahead = self._tls.pending and self._has_come(self._tls)
            return read_ahead or (self._comes(seconds) and self._has_come(self._tls))
        if not self._is_connected:
            return False
        # In mid stream the heads of the next PDU are there, and to read them is cheaper than to ask. What was
        # sent, the peer has to hear first.
        if not self._spoke and self._heads_have_come():
            return True
        self._spoke = False
        return self._comes(seconds) and self._heads_have_come()

    def heads(self) -> bytes:
        """Return what was read ahead; of a P-DATA-TF both heads, where a read ends in time."""
        if (
            len(self.unread) == _SHORTEST
            and self.unread[0] == P_DATA_TF
            and self._pause == self._first_pause
        ):
            try:
                self.unread += self._own.recv(HEADS - _SHORTEST, _ALL)
            except BlockingIOError:
                raise TimeoutError(_PAUSED) from None
        return self.unread

    def _comes(self, seconds: float) -> bool:
        if not self._is_connected:
            return False
        ready = [descriptor for descriptor, _ in self._either.poll(seconds * 1000)]
        if self._ear_number in ready:
            with suppress(OSError):
                self._ear.recv(4096)
        return self._number in ready

    def _heads_have_come(self) -> bool:
        """Read what is there of the next PDU's heads."""
        try:
            self.unread = self._own.recv(HEADS, _NOW)
        except BlockingIOError:
            return False
        except OSError:
            return True  # whoever reads will meet it
        return True

    def _has_come(self, tls: Tls) -> bool:
        """Tell whether what arrived is for the association: TLS talks of its own (keys, tickets)."""
        try:
            self.unread += tls.recv_now(HEADER)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            if self._free.poll(self._idle * 1000):
                return False
            self._cut()
        except OSError:
            pass  # whoever reads will meet it
        return True

    def ring(self) -> None:
        """Wake the thread that waits."""
        with suppress(OSError):  # full: it rings already; closed: nobody waits any more
            self._bell.send(b"\x00")

    def close_bell(self) -> None:
        """Forget the bell; the thread that waited is over."""
        self._bell.close()
        self._ear.close()

    def begin_pdu(self) -> None:
        """Let the time of a PDU begin."""
        self._over = monotonic() + self._whole

    def fill(self, view: memoryview) -> bool:
        """Read the PDU's next bytes until ``view`` is full; False when the peer closed before.

        Raises
        ------
        TimeoutError
            When a pause was too long, or the PDU's time is over.
        """
        if self.unread:
            got = min(len(view), len(self.unread))
            view[:got] = self.unread[:got]
            self.unread = self.unread[got:]
            view = view[got:]
        while view:
            left = self._over - monotonic()
            if left <= 0:
                raise TimeoutError("the PDU was not whole in time")
            count = self._some(view, min(left, self._idle))
            if count == 0:
                return False
            view = view[count or 0 :]
        return True

    def fill_rest(self, view: memoryview, *, more: bool) -> bool:
        """Read what follows the heads of a PDU, as ``fill``; it begins here where they are only read ahead.

        As a rule this is one call of the kernel with next to nothing around it. Where ``more`` must follow,
        the heads of the next PDU come with it, but for two bytes that an A-ABORT does not have. Who waits
        for them hears no bell, but no longer than a PDU may pause.
        """
        if not self.unread:
            return self.fill(view)
        self._over = monotonic() + self._whole
        self.unread = b""
        if self._pause != self._first_pause:
            return self.fill(view)
        ahead, size = self._ahead, len(view)
        try:
            if more:
                count = self._own.recvmsg_into((view, ahead), 0, _ALL)[0]
            else:
                count = self._own.recv_into(view, 0, _ALL)
        except BlockingIOError:
            raise TimeoutError(_PAUSED) from None
        if count > size:
            self.unread = bytes(ahead[: count - size])
        return count >= size or (count > 0 and self.fill(view[count:]))

    def _some(self, view: memoryview, pause: float) -> int | None:
        """Read some; return how many bytes, None where TLS alone has talked."""
        if self._tls is not None:
            return self._some_of(self._tls, view, pause)
        # The kernel keeps the time, or every read would poll first. One call, and one change of threads,
        # is a whole PDU then.
        if pause != self._pause:
            self._own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(pause))
            self._pause = pause
        try:
            return self._own.recv_into(view, 0, _ALL)
        except BlockingIOError:
            raise TimeoutError(_PAUSED) from None

    def _some_of(self, tls: Tls, view: memoryview, pause: float) -> int | None:
        with suppress(ssl.SSLWantReadError):
            return tls.recv_into(view)
        try:
            tls.feed()
            return None
        except BlockingIOError:
            due = self._poll
        except ssl.SSLWantWriteError:
            due = self._free
        if not due.poll(pause * 1000):
            raise TimeoutError(_PAUSED)
        return None

    def close(self) -> None:
        """Close the connection; with TLS the peer is told that this is its end."""
        if self._tls is not None and self.socket is not None:
            self._tls.unwrap()
        super().close()

    def throw_away(self) -> int:
        """Read what is there and forget it; return how many bytes, 0 when the peer has closed."""
        sock = cast("socket.socket", self.socket)
        self.unread = b""
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            if self._tls is not None:
                return len(self._tls.recv_now(_PIECE))
            return len(sock.recv(_PIECE, socket.MSG_DONTWAIT))
        return _PIECE

    def send(self, bytestream: bytes) -> None:
        """Send all of it in time, or give the connection up."""
        self._spoke = True
        try:
            self._send(memoryview(bytestream))
        except (OSError, AttributeError):  # None once it is closed
            # Whatever else is to be answered would wait as long, each by itself.
            self._cut()
            self.event_queue.put(CONNECTION_CLOSED)

    def _send(self, view: memoryview) -> None:
        sock = cast("socket.socket", self.socket)
        over = monotonic() + self._whole
        while view:
            try:
                # The socket still blocks for who reads.
                view = view[sock.send(view) if self._tls else sock.send(view, _NOW) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                left = min(over - monotonic(), self._idle)
            if left <= 0 or not self._free.poll(left * 1000):
                raise TimeoutError("the peer does not take its answer")


def _timeval(seconds: float) -> bytes:
    """Return a time as the kernel takes it (socket(7))."""
    whole, part = divmod(max(seconds, 0.001), 1)
    return pack("@ll", int(whole), int(part * 1e6))
