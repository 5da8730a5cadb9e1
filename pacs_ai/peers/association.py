"""Associations that the gateway asks for: contexts, time-outs, and what a refusal means.

Every Service Class User of the gateway goes through :func:`associate`, so that none waits for ever
and none writes what passes over the wire to a log.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext, SSLSocket

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from pacs_ai.certificates import client_context, identities, why_not
from pacs_ai.errors import ConfigError, TransientError
from pacs_ai.settings import ClientTLS
from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# pynetdicom logs what it carries, down to data sets; the gateway writes its own lines.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.ENFORCE_UID_CONFORMANCE = True
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

_MAXIMUM_PDU = 131072
_CALLED_UNKNOWN = (0x01, 0x07)  # service user: called AE title not recognised


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a peer, in seconds.

    Attributes
    ----------
    connection : float
        For the TCP connection.
    acse : float
        For the answer to an association or release request.
    dimse : float
        For the answer to a message, on top of the time to send it.
    network : float
        For any progress of the connection at all, in either direction.
    """

    connection: float = 5
    acse: float = 10
    dimse: float = 60
    network: float = 60


TIMEOUTS = Timeouts()


class RejectedError(TransientError):
    """The peer is an AE and answered that it does not take this association (PS3.8 9.3.4)."""

    def __init__(self, message: str, *, called_unknown: bool) -> None:
        super().__init__(message)
        self.called_unknown = called_unknown
        """The AE that answered has another title than the one that was called."""


@contextmanager
def associate(
    *,
    host: str,
    port: int,
    called: str,
    calling: str,
    contexts: Iterable[tuple[str, str]],
    tls: ClientTLS | None = None,
    timeouts: Timeouts = TIMEOUTS,
) -> Iterator[Association]:
    """Hold an association with a peer; it is released at the end, or aborted when that fails.

    Parameters
    ----------
    host : str
        Name or address of the peer.
    port : int
    called, calling : str
        AE titles of the peer and of this gateway.
    contexts : iterable of (str, str)
        SOP Class UID and Transfer Syntax UID of each presentation context to propose; one context
        for each pair, at most 128 (PS3.8 9.3.2.2).
    tls : ClientTLS, optional
        Without it the association is plain.
    timeouts : Timeouts, optional

    Yields
    ------
    Association
        Established; or not established, with every context in ``rejected_contexts``, when the peer
        answered but takes none of them.

    Raises
    ------
    TransientError
        When there is no association: no such host, no connection, a certificate that is not the peer's,
        no answer in time; :class:`RejectedError` when the peer says so.
    """
    entity = _entity(calling, timeouts)
    if tls is not None:
        entity.secured = _Secured(host, tls)
    try:
        association = _request(entity, f"{called} at {host}:{port}", host, port, called, contexts)
        try:
            yield association
        except BaseException:
            if association.is_established:
                association.abort()
            raise
        association.release()
    finally:
        entity.close()


def _request(
    entity: _Entity,
    peer: str,
    host: str,
    port: int,
    called: str,
    contexts: Iterable[tuple[str, str]],
) -> Association:
    connected: list[Event] = []
    rejections: list[RejectedError] = []

    def note_rejection(event: Event) -> None:
        # The library forgets a rejection whose connection ended before its own thread woke.
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(_rejected(peer, event.pdu))
            # Its thread dies of values that it does not know, and its caller waits in vain.
            event.pdu.result = event.pdu.source = event.pdu.reason_diagnostic = 1

    try:
        association = entity.associate(
            host,
            port,
            contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
            ae_title=called,
            max_pdu=_MAXIMUM_PDU,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, connected.append),
                (evt.EVT_PDU_RECV, note_rejection),
            ],
        )
    except socket.gaierror as error:
        raise TransientError(f"{host} has no address: check the host name of {called}") from error
    if not association.is_established and not association.rejected_contexts:
        if rejections:
            raise rejections[0]
        raise TransientError(_no_answer(entity.secured, peer, connected=bool(connected)))
    return association


def accepts(association: Association, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
    """Tell whether the peer took the context of this SOP Class in exactly this transfer syntax."""
    return any(
        context.abstract_syntax == sop_class_uid
        and context.transfer_syntax[0] == transfer_syntax_uid
        for context in association.accepted_contexts
    )


class _Secured:
    """TLS of one connection: whom it must reach, and why it did not."""

    def __init__(self, host: str, tls: ClientTLS) -> None:
        try:
            self._context = client_context(tls)
        except ConfigError as error:
            raise TransientError(f"TLS towards {host}: {error}") from error
        self._host = host
        self._certificates = frozenset(tls.certificates)
        self.failure = ""

    def wrap(self, connection: socket.socket) -> SSLSocket:
        """Return the connection with TLS, its handshake still to come."""
        return self._context.wrap_socket(
            connection, server_hostname=self._host, do_handshake_on_connect=False
        )

    def shake(self, connection: SSLSocket) -> bool:
        """Shake hands; return whether it is the peer of the settings that answered."""
        try:
            connection.do_handshake()
        except OSError as error:
            self.failure = why_not(error)
            return False
        if self._certificates and self._certificates.isdisjoint(identities(connection)):
            self.failure = "another certificate than tls.certificates names"
        return not self.failure


class _BoundedSocket(AssociationSocket):
    """A connection that never waits for ever, and reaches whom it is meant for."""

    secured: _Secured | None = None
    connection: socket.socket | None = None
    """The socket itself, also when the library has forgotten it."""

    def connect(self, primitive: T_CONNECT) -> None:
        if self.secured is not None:
            assert self.socket is not None  # noqa: S101 - made before this is called
            self.socket = self.secured.wrap(self.socket)
        self.connection = self.socket
        super().connect(primitive)
        if self.socket is None:
            return
        if self.secured is not None and isinstance(self.socket, SSLSocket):
            self.socket.settimeout(self.assoc.connection_timeout)
            if not self.secured.shake(self.socket):
                # As the library does where it cannot connect; nothing of DICOM has left yet.
                self._shutdown_socket()
                self.socket, self._is_connected = None, False
                primitive.result = "Evt17"
                return
        # pynetdicom waits without limit on a peer that stops reading or sends half a PDU.
        self.socket.settimeout(self.assoc.network_timeout)


class _Entity(AE):
    """An AE for one association, whose connection is bounded and closed whatever became of it."""

    secured: _Secured | None = None
    _bounded: _BoundedSocket | None = None

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[SSLContext, str] | None,
    ) -> AssociationSocket:
        bounded = _BoundedSocket(assoc, address=address)
        bounded.connection = bounded.socket
        bounded.secured = self.secured
        self._bounded = bounded
        return bounded

    def close(self) -> None:
        """Close the connection; pynetdicom forgets one that failed, or that its peer ended."""
        if self._bounded is not None and self._bounded.connection is not None:
            self._bounded.connection.close()


def _entity(calling: str, timeouts: Timeouts) -> _Entity:
    entity = _Entity(calling)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = timeouts.connection
    entity.acse_timeout = timeouts.acse
    entity.dimse_timeout = timeouts.dimse
    entity.network_timeout = timeouts.network
    return entity


def _rejected(peer: str, answer: A_ASSOCIATE_RJ) -> RejectedError:
    try:
        reason = answer.reason_str
    except ValueError:  # outside PS3.8 table 9-21; a rejection all the same
        reason = f"source {answer.source}, reason {answer.reason_diagnostic}"
    return RejectedError(
        f"{peer} rejected the association ({reason}): "
        "check both AE titles and that the peer knows this gateway",
        called_unknown=(answer.source, answer.reason_diagnostic) == _CALLED_UNKNOWN,
    )


def _no_answer(secured: _Secured | None, peer: str, *, connected: bool) -> str:
    if secured is not None and secured.failure:
        return f"no TLS with {peer}: {secured.failure}: check tls there and here, and both certificates"
    if not connected:
        return f"nothing answers for {peer}: check address, port and firewall"
    if secured is not None:
        return (
            f"{peer} connected but did not answer the association request: does it take "
            "the certificate under tls, or want one?"
        )
    return f"{peer} connected but did not answer the association request: is it a DICOM port?"
