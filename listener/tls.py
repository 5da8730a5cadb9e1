"""TLS of the DICOM face: the library's own server with it, and whose certificate an association showed.

The hardened transport shakes hands on its porch (:mod:`listener.door`). The library's own would do so in its
accept loop, where one silent peer keeps everybody out; here its thread of the connection does.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any, cast

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AssociationServer, ThreadedAssociationServer

from listener.door import HANDSHAKE, tell_failed
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


def start_plain(
    entity: AE, address: tuple[str, int], tls: Pair | None, evt_handlers: list[Any]
) -> AssociationServer:
    """Return the library's own server, which listens in a thread; ``shutdown()`` ends it."""
    if tls is None:
        server = entity.start_server(address, block=False, evt_handlers=evt_handlers)
        assert isinstance(server, AssociationServer)  # noqa: S101 - block=False returns it
        return server
    shaking = entity.make_server(
        address, evt_handlers=evt_handlers, server_class=_PlainServer, tls=tls
    )
    entity._servers.append(shaking)
    threading.Thread(target=shaking.serve_forever, name="AcceptorServer", daemon=True).start()
    return cast("AssociationServer", shaking)


class _PlainServer(ThreadedAssociationServer):
    """The library's server, whose handshakes are over in time and never in the accept loop."""

    def __init__(self, *arguments: Any, tls: Pair, **named: Any) -> None:
        self._tls = tls
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; it shakes hands in its own thread."""
        accepted, address = super().get_request()
        return self._tls.context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        ), address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then go on as without TLS."""
        request.settimeout(HANDSHAKE)
        try:
            request.do_handshake()
        except OSError as error:
            tell_failed(error)
            self.shutdown_request(request)
            return
        request.settimeout(None)
        super().finish_request(request, client_address)
