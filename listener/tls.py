"""TLS of the DICOM face: of either transport, and whose certificate an association showed.

The hardened transport shakes hands on its porch (:mod:`listener.door`), with :class:`Tls`. The library's own
would do so in its accept loop, where one silent peer keeps everybody out; here its thread of the connection
does.
"""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from listener.sharing import SharingServer
from pacs_ai.certificates import Pair, identities, why_not
from pacs_ai.settings import Listener

log = logging.getLogger(__name__)

HANDSHAKE = 5.0
"""Seconds in which a TLS handshake is over."""

_PIECE = 64 * 1024


def tell_failed(error: OSError, address: str) -> None:
    """Log why a TLS handshake failed; who connects and leaves, as health checks do, is no news."""
    if not isinstance(error, ssl.SSLEOFError | ConnectionError):
        log.warning("a TLS handshake failed: %s", why_not(error), extra={"address": address})


class Tls:
    """The serving end of a TLS connection: a socket that never waits, and OpenSSL sees it piece by piece.

    Given the socket itself, OpenSSL reads on for as long as records come that are not the application's: a
    peer that sends new keys and nothing else (RFC 8446 section 4.6.3) holds its reader, whatever the time.

    Parameters
    ----------
    under : socket.socket
        The connection; it is made not to wait.
    context : SSLContext
        What the server shows and asks for.
    """

    def __init__(self, under: socket.socket, context: ssl.SSLContext) -> None:
        under.settimeout(0)
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = memoryview(b"")
        self._owed = 0
        self.pending = False
        """What was fed may hold more."""

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._under.fileno()

    def shake(self) -> None:
        """Go on with the handshake.

        Raises
        ------
        SSLWantReadError
            While it is not over.
        OSError
            When it has failed.
        """
        try:
            self.session.do_handshake()
        finally:
            with suppress(OSError):
                self._flush()

    def feed(self, size: int = _PIECE) -> None:
        """Take what came, once and no more than ``size`` bytes of it.

        Raises
        ------
        BlockingIOError
            When nothing came.
        SSLWantWriteError
            When the peer does not take what it is owed first: answers to its new keys.
        """
        if not self._flush():
            raise ssl.SSLWantWriteError("the peer does not take what TLS answers")
        if data := self._under.recv(size):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self.pending = True

    def recv(self, size: int) -> bytes:
        """Return some of what was fed, nothing at the peer's end.

        Raises
        ------
        SSLWantReadError
            When more has to be fed first.
        """
        try:
            return self.session.read(size)
        except ssl.SSLError as error:
            if self._is_end(error):
                return b""
            raise

    def recv_now(self, size: int) -> bytes:
        """Return some of what is there, as :meth:`recv`, fed first where nothing is left."""
        if not self.pending:
            self.feed()
        return self.recv(size)

    def recv_into(self, view: memoryview) -> int:
        """Put some of what was fed into ``view``, as :meth:`recv`; return how many bytes."""
        try:
            return self.session.read(len(view), view)  # type: ignore[return-value]
        except ssl.SSLError as error:
            if self._is_end(error):
                return 0
            raise

    def _is_end(self, error: ssl.SSLError) -> bool:
        if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
            return True
        self.pending = False
        with suppress(OSError):  # answers to new keys, or why it is over
            self._flush()
        return False

    def send(self, view: memoryview) -> int:
        """Send some; return how many bytes the network has taken.

        Raises
        ------
        SSLWantWriteError
            When it has not taken them yet: ask again with the same bytes.
        """
        if not self._owed and self._flush():
            self._owed = self.session.write(view[:_PIECE])
        if not self._flush():
            raise ssl.SSLWantWriteError("the peer does not take what is sent")
        sent, self._owed = self._owed, 0
        return sent

    def shutdown(self, how: int) -> None:
        """End the connection under whoever reads it."""
        self._under.shutdown(how)

    def unwrap(self) -> None:
        """Tell the peer that this is the end (RFC 8446 section 6.1)."""
        with suppress(OSError, ValueError):
            # Its own end is not waited for, nor is what is unread read.
            with suppress(ssl.SSLError):
                self.session.unwrap()
            self._flush()

    def close(self) -> None:
        """Close the connection."""
        self._under.close()

    def _flush(self) -> bool:
        """Send what TLS has to say; tell whether nothing is left of it."""
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self._under.send(self._unsent) :]
            except BlockingIOError:
                return False
        return True


def pair_of(settings: Listener) -> Pair | None:
    """Return what the listener shows, or None without TLS.

    Raises
    ------
    ConfigError
        When the files cannot be used.
    """
    if settings.certificate is None or settings.key is None:
        return None
    return Pair(settings.certificate, settings.key, settings.client_authorities)


def shown_by(association: Association) -> frozenset[str]:
    """Return the identities of the certificate that the peer of an association showed."""
    connection = association.dul.socket
    end = None if connection is None else connection.socket
    try:
        if isinstance(end, Tls):
            return identities(end.session)
        return identities(end) if isinstance(end, ssl.SSLSocket) else frozenset()
    except (OSError, ValueError):  # the connection has just ended
        return frozenset()


class PlainServer(SharingServer, ThreadedAssociationServer):
    """The library's own transport; its handshakes are over in time and never in the accept loop."""

    def __init__(self, *arguments: Any, tls: Pair | None, **named: Any) -> None:
        self._tls = tls
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; it shakes hands in its own thread."""
        accepted, address = super().get_request()
        if self._tls is not None:
            accepted = self._tls.context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return accepted, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then go on as without TLS."""
        if isinstance(request, ssl.SSLSocket):
            request.settimeout(HANDSHAKE)
            try:
                request.do_handshake()
            except OSError as error:
                tell_failed(error, str(client_address[0]))
                self.shutdown_request(request)
                return
            request.settimeout(None)
        super().finish_request(request, client_address)
