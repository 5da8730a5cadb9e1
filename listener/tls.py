"""TLS of the DICOM face: the library's own server with it, and whose certificate an association showed.

The hardened transport shakes hands on its porch (:mod:`listener.door`). The library's own would do so in its
accept loop, where one silent peer keeps everybody out; here its thread of the connection does.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from listener.door import HANDSHAKE, tell_failed
from listener.sharing import SharingServer
from pacs_ai.certificates import Pair, identities
from pacs_ai.settings import Listener


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
    if connection is None or not isinstance(connection.socket, ssl.SSLSocket):
        return frozenset()
    try:
        return identities(connection.socket)
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
                tell_failed(error)
                self.shutdown_request(request)
                return
            request.settimeout(None)
        super().finish_request(request, client_address)
