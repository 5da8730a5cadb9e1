"""A certificate and its private key: whether they can be served, and until when (BCP 195)."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

from pacs_ai.errors import ConfigError, Fault

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's TLS context: 1.2 or later, forward secrecy, authenticated encryption.

    Raises
    ------
    ConfigError
        When the files cannot be used, or the key can be read by everyone.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    try:
        if key.stat().st_mode & stat.S_IROTH:
            raise ConfigError([Fault(f"the key file {key} is world-readable: chmod 600 it")])
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        fault = f"{certificate} and {key} cannot be used: check both files, and that they fit"
        raise ConfigError([Fault(fault)]) from error
    return context


def ends(certificate: Path, key: Path) -> datetime | None:
    """Return when a certificate ends; None when it has ended, or is not valid yet.

    Raises
    ------
    ConfigError
        When the files cannot be used.
    """
    # The library reads a certificate's dates for a client that trusts it: one asks in memory.
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    serving = server_context(certificate, key)
    trusting.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError:
        return None
    return _date(client.getpeercert())


def _date(found: object) -> datetime | None:
    if not isinstance(found, dict):
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)
