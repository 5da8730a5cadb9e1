"""Certificates and TLS, for DICOM and HTTP alike (BCP 195).

Who serves shows a :class:`Pair`, which follows its files; who calls has a :func:`client_context`. Whom a
certificate stands for is said by :func:`identities`, in the words of the settings. :func:`held` tells until
when every certificate of the settings is good.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from pacs_ai.errors import ConfigError, Fault
from pacs_ai.settings import ClientTLS, Settings

log = logging.getLogger(__name__)

ALARMS = (timedelta(days=30), timedelta(days=7), timedelta(days=1))
"""How long before its end a certificate is told of, with more weight each time."""

_NEVER = datetime.max.replace(tzinfo=UTC)
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; all of 1.3 are of this kind


def server_context(
    certificate: Path, key: Path, client_authorities: Path | None = None
) -> ssl.SSLContext:
    """Return a server's TLS context: 1.2 or later, forward secrecy, authenticated encryption.

    Parameters
    ----------
    certificate, key : Path
        PEM files.
    client_authorities : Path, optional
        PEM file of who vouches for clients; with it a client without a certificate is refused.

    Raises
    ------
    ConfigError
        When the files cannot be used, or the key can be read by everyone.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_pair(context, certificate, key)
    if client_authorities is not None:
        _load_authorities(context, client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTLS) -> ssl.SSLContext:
    """Return the TLS context of one who calls; it verifies whom it reaches.

    Raises
    ------
    ConfigError
        When the files cannot be used, or the key can be read by everyone.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    # Bound to certificates of its own, a peer need not be named like its host.
    context.check_hostname = not tls.certificates
    if tls.authorities is None:
        context.load_default_certs()
    else:
        _load_authorities(context, tls.authorities)
    if tls.certificate is not None and tls.key is not None:
        _load_pair(context, tls.certificate, tls.key)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        if key.stat().st_mode & stat.S_IROTH:
            raise ConfigError([Fault(f"the key file {key} is world-readable: chmod 600 it")])
        # Without a password given, the library asks the terminal for one and waits.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # SSLError is one
        fault = (
            f"{certificate} and {key} cannot be used: check both files, that they fit, and that the "
            "key has no pass phrase"
        )
        raise ConfigError([Fault(fault)]) from error


def _load_authorities(context: ssl.SSLContext, authorities: Path) -> None:
    # A site may trust one issuing authority, or a device's own certificate, and not the root above it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        fault = f"{authorities} cannot be used: it is to hold certificates of authorities as PEM"
        raise ConfigError([Fault(fault)]) from error


class Pair:
    """A server's certificate and key, read again when the files change.

    A new pair that cannot be used is logged once, and the former one stays.

    Parameters
    ----------
    certificate, key : Path
        PEM files.
    client_authorities : Path, optional
        See :func:`server_context`.

    Raises
    ------
    ConfigError
        When the files cannot be used at the start.
    """

    def __init__(
        self, certificate: Path, key: Path, client_authorities: Path | None = None
    ) -> None:
        self._files = (certificate, key, client_authorities)
        self._seen = self._stamps()
        self._context = server_context(*self._files)

    @property
    def context(self) -> ssl.SSLContext:
        """What the next connection gets."""
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            try:
                self._context = server_context(*self._files)
            except ConfigError as error:
                log.error("the new certificate is not served, the former one stays: %s", error)
            else:
                log.info("the certificate was read again: its files had changed")
        return self._context

    def following(self) -> ssl.SSLContext:
        """Return a context for a server that takes one for good: every handshake gets the newest pair."""
        fixed = server_context(*self._files)

        def greeted(connection: ssl.SSLObject, _name: str, _fixed: ssl.SSLContext) -> None:
            connection.context = self.context

        fixed.sni_callback = greeted  # called without a server name too
        return fixed

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(file) for file in self._files if file is not None)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def identities(connection: ssl.SSLSocket | ssl.SSLObject) -> frozenset[str]:
    """Return whom the certificate at the other end stands for.

    Parameters
    ----------
    connection : SSLSocket or SSLObject
        After the handshake.

    Returns
    -------
    frozenset of str
        ``sha256:`` and its fingerprint; ``dns:`` and each DNS name of its Subject Alternative Name. Empty
        when no certificate was shown, or none that was verified.
    """
    encoded, verified = connection.getpeercert(binary_form=True), connection.getpeercert()
    if not encoded or not verified:
        return frozenset()
    fingerprint = hashlib.sha256(encoded).hexdigest()
    names = cast("tuple[tuple[str, str], ...]", verified.get("subjectAltName", ()))
    named = (f"dns:{name.lower()}" for kind, name in names if kind == "DNS")
    return frozenset({f"sha256:{fingerprint}", *named})


def is_shown_at(host: str, port: int, certificate: Path) -> bool:
    """Tell whether who listens there shows this very certificate, and holds its key."""
    # Compared, not verified: one that has ended is shown all the same.
    asking = _context(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=3) as plain,
            asking.wrap_socket(plain) as shown,
        ):
            return shown.getpeercert(binary_form=True) == _first(certificate.read_text())
    except (OSError, ValueError):
        return False


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of a certificate, as ``openssl x509 -fingerprint -sha256`` shows it, in lower case.

    Raises
    ------
    OSError, ValueError
        When the file cannot be read, or is none.
    """
    digest = hashlib.sha256(_first(certificate.read_text())).hexdigest()
    return ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))


def _first(pem: str) -> bytes:
    begin, end = pem.index(ssl.PEM_HEADER), pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(pem[begin:end])


def why_not(error: OSError) -> str:
    """Say why a handshake failed, in the library's words; they name nobody."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, TimeoutError):
        return "not over in time"
    return getattr(error, "reason", None) or "the connection was closed"


# ---------------------------------------------------------------------- until when


@dataclass(frozen=True, slots=True)
class Held:
    """One certificate of the settings: where it is named, and until when it is good.

    Attributes
    ----------
    setting : str
        Such as ``listener.certificate``.
    ends : datetime or None
        None when it cannot be used today.
    fault : str
        Why it cannot be used; else empty.
    """

    setting: str
    ends: datetime | None
    fault: str

    @property
    def problem(self) -> str:
        """Say which it is and why it cannot be used; else empty."""
        return f"{self.setting}: {self.fault}" if self.fault else ""

    def alarm(self, at: datetime) -> timedelta | None:
        """Return the shortest of :data:`ALARMS` that it ends within, or None."""
        if self.ends is None:
            return ALARMS[-1]
        return min((one for one in ALARMS if self.ends < at + one), default=None)


def held(settings: Settings) -> Iterator[Held]:
    """Yield every certificate that the settings name: shown by a face, shown to a peer, vouching."""
    for name, face in (("listener", settings.listener), ("web", settings.web)):
        if face.certificate is not None and face.key is not None:
            yield _held(f"{name}.certificate", face.certificate, face.key)
    if settings.listener.client_authorities is not None:
        yield _vouching("listener.client_authorities", settings.listener.client_authorities)
    named = {f"peers.{name}": peer.tls for name, peer in settings.peers.items()}
    for name, destination in settings.destinations.items():
        named[f"destinations.{name}"] = getattr(destination, "tls", None)
    for name, tls in named.items():
        if tls is not None and tls.certificate is not None and tls.key is not None:
            yield _held(f"{name}.tls.certificate", tls.certificate, tls.key)
        if tls is not None and tls.authorities is not None:
            yield _vouching(f"{name}.tls.authorities", tls.authorities)


def _held(setting: str, certificate: Path, key: Path) -> Held:
    try:
        until = ends(certificate, key)
    except ConfigError as error:
        return Held(setting, None, "; ".join(fault.message for fault in error.faults))
    if until is None or until <= datetime.now(UTC):
        fault = (
            f"{certificate} is not valid today, or one between it and its authority: get another"
        )
        return Held(setting, None, fault)
    return Held(setting, until, "")


def _vouching(setting: str, authorities: Path) -> Held:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _load_authorities(context, authorities)
    except ConfigError as error:
        return Held(setting, None, "; ".join(fault.message for fault in error.faults))
    # Devices' own certificates are not listed by the library; whoever shows one holds its date.
    until = _lasting(context)
    if until <= datetime.now(UTC):
        return Held(
            setting,
            None,
            f"{authorities}: an authority in it is not valid today: put its new certificate beside it, "
            "or take it out",
        )
    return Held(setting, until, "")


def _lasting(context: ssl.SSLContext) -> datetime:
    """Return when the first authority of a context ends; one that is not valid yet has ended.

    An authority is there beside its successor for a while: of one name, the one that stays longest counts.
    """
    at = datetime.now(UTC)
    ends: dict[object, datetime] = {}
    for one in context.get_ca_certs():
        name, end = one["subject"], _date(one)
        begun = end if _date(one, "notBefore") <= at else at
        ends[name] = max(begun, ends.get(name, begun))
    return min(ends.values(), default=_NEVER)


def ends(certificate: Path, key: Path) -> datetime | None:
    """Return when a certificate ends, or the first of those that stand in its file to vouch for it.

    None when it has ended itself, or is not valid yet.

    Raises
    ------
    ConfigError
        When the files cannot be used.
    """
    # The library reads dates only of what it verified: two ends in memory show it to each other, first
    # as a server's certificate, then as a client's.
    showing = server_context(certificate, key)
    asking = _context(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    _load_authorities(asking, certificate)
    shown = _shown(asking, showing)
    if shown is None:
        asked = server_context(certificate, key, certificate)
        calling = _context(ssl.PROTOCOL_TLS_CLIENT)
        calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
        _load_pair(calling, certificate, key)
        shown = _shown(calling, asked)
    if shown is None:
        return None
    # Whoever verifies it needs those between it and its authority, which stand in the same file.
    return min(shown, _lasting(asking))


def _shown(calling: ssl.SSLContext, called: ssl.SSLContext) -> datetime | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = calling.wrap_bio(to_client, to_server)
    server = called.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError:
        return None
    found = client.getpeercert() or server.getpeercert()
    return _date(found) if found else None


def _date(found: object, which: str = "notAfter") -> datetime:
    assert isinstance(found, dict)  # noqa: S101 - as the library types it
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found[which])), UTC)
