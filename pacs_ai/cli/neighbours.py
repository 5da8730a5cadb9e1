"""What ``pacs-ai check`` asks of others: broker, endpoints, destinations, and their clocks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from pydicom.uid import UID

from pacs_ai.cli.disk import existing
from pacs_ai.cli.roles import ping_broker
from pacs_ai.delivery import asker, wanted
from pacs_ai.encoding import ENCODERS, TRANSFER_SYNTAX_UID
from pacs_ai.errors import ConfigError, Fault, PacsAiError, TransientError
from pacs_ai.http import (
    CertificateError,
    Response,
    UnreachableError,
    exchange,
    handshake,
    session,
)
from pacs_ai.ledger.soundness import CLOCK_TOLERANCE
from pacs_ai.models.endpoint import REFERENCE_HEADER
from pacs_ai.peers.contexts import refused
from pacs_ai.peers.echo import echo
from pacs_ai.settings import Confirm, DicomDestination, Endpoint, Settings
from pacs_ai.uids import derived_uid

_DEADLINE = timedelta(seconds=5)
_BODY_LIMIT = 1024 * 1024


def broker(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with the broker that the settings name."""
    if settings.broker is None:
        return
    try:
        ping_broker(settings.broker)
    except PacsAiError as error:
        yield Fault(f"broker: {error}")


def endpoints(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with keys and addresses of scoring endpoints."""
    for name, endpoint in settings.endpoints.items():
        where = f"endpoints.{name}"
        try:
            if endpoint.key is not None:
                endpoint.key.read()
        except ConfigError as error:
            if not endpoint.reference:  # `serve` makes the keys of the built-in models
                yield from (Fault(f"{where}.key: {fault.message}") for fault in error.faults)
        address = urlsplit(endpoint.url)
        port = address.port or (443 if address.scheme == "https" else 80)
        if endpoint.reference:
            if connects(str(address.hostname), port) and not _takes_key(endpoint):
                yield Fault(
                    f"{where}.url: {port} is taken by another program or other settings' model: choose "
                    "another port"
                )
            continue
        if not connects(str(address.hostname), port):
            yield Fault(
                f"{where}.url: nothing answers there: check the address, the name service "
                "and the firewall"
            )
        elif address.scheme == "https":
            yield from _tls(where, str(address.hostname), port)


def _takes_key(endpoint: Endpoint) -> bool:
    """Tell whether who answers for a reference model is one and knows its key; the model is asked nothing."""
    try:
        key = endpoint.key.read() if endpoint.key is not None else ""
        health = _ask("GET", urljoin(endpoint.url, "/"))
    except PacsAiError:
        return False
    if REFERENCE_HEADER not in health.headers:
        return False  # no stranger is shown the key
    try:
        answer = _ask("POST", endpoint.url, Authorization=f"Bearer {key}")
    except PacsAiError:
        return True  # it is at work
    return answer.status != HTTPStatus.UNAUTHORIZED


def _ask(method: str, url: str, **headers: str) -> Response:
    with session() as asking:
        return exchange(
            asking, method, url, deadline=_DEADLINE, body_limit=_BODY_LIMIT, headers=headers
        )


def _tls(where: str, host: str, port: int) -> Iterator[Fault]:
    try:
        handshake(host, port)
    except CertificateError as error:
        yield Fault(f"{where}.url: {host}: {error}")
    except UnreachableError:
        yield Fault(f"{where}.url: {host} takes a connection and does not answer: ask its operator")


def notes(settings: Settings) -> Iterator[str]:
    """Yield what is no fault and should be known."""
    for name in settings.asked_destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination) and target.confirm is Confirm.OFF:
            yield f"{name}: not confirmed before sending: set confirm: c-find"


def destinations(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with where results go: folder, C-ECHO, SOP Classes, question for a Study."""
    for name in settings.destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination):
            yield from _destination(name, target)
        elif target is not None:
            yield from _folder(name, target.path)
    for name in settings.receivers:
        if settings.destination(name) is None:
            yield Fault(
                f"peers.{name}: delivery sends results there, but it has no host and port: add them"
            )


def _folder(name: str, path: Path) -> Iterator[Fault]:
    where = f"destinations.{name}.path"
    try:
        folder = existing(path)
    except OSError:  # one above it may not be entered
        folder = None
    if folder is not None and not folder.is_dir():
        yield Fault(f"{where}: {folder} is a file, not a folder: choose another path")
    elif folder is None or not os.access(folder, os.W_OK | os.X_OK):
        what = "written" if folder == path else "made"
        yield Fault(
            f"{where}: {path} cannot be {what}: change the owner of the folder, or the path"
        )


def _destination(name: str, target: DicomDestination) -> Iterator[Fault]:
    answer = echo(
        host=target.host,
        port=target.port,
        called=target.ae_title,
        calling=target.calling_ae_title,
        tls=target.tls,
    )
    if not answer.ok:
        yield Fault(f"{name}: C-ECHO failed: {answer.detail}")
        return
    try:
        for sop_class, _ in refused(target, contexts(target)):
            yield Fault(
                f"{name}: it does not take {UID(sop_class).name} ({sop_class}) in Explicit VR "
                "Little Endian: enable that SOP Class there, or choose another profile"
            )
    except TransientError as error:
        yield Fault(f"{name}: {error}: ask again, and look at its log if it stays so")
    if target.confirm is not Confirm.OFF:
        yield from _confirmation(name, target)


def contexts(target: DicomDestination) -> tuple[tuple[str, str], ...]:
    """Return SOP Class and transfer syntax of everything that a destination gets by its profile."""
    return tuple(
        (row.sop_class_uid, TRANSFER_SYNTAX_UID)
        for kind, row in ENCODERS.items()
        # On a volume: the most that it may get.
        if wanted(kind, volumetric=True, profile=target.profile, narrative=target.narrative)
    )


def _confirmation(name: str, target: DicomDestination) -> Iterator[Fault]:
    try:
        # For a Study that nobody has: the answer "none" shows that the question is understood.
        asker(target.confirm)(derived_uid("check", name), target)
    except ConfigError as error:
        yield from (Fault(f"{name}.qido_key: {fault.message}") for fault in error.faults)
    except PacsAiError as error:
        yield Fault(f"{name}.confirm: {error}")


def clocks(settings: Settings) -> Iterator[Fault]:
    """Yield which HTTP servers have another time than this machine."""
    asked = {
        f"endpoints.{name}": endpoint.url
        for name, endpoint in settings.endpoints.items()
        if not endpoint.reference
    }
    for name in settings.destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination) and target.qido_url is not None:
            asked[name] = target.qido_url
    for where, url in asked.items():
        difference = _difference(url)
        if difference is not None and abs(difference) > CLOCK_TOLERANCE:
            seconds = difference.total_seconds()
            yield Fault(
                f"{where}: its clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} "
                "this machine's: let the same time service keep both"
            )


def _difference(url: str) -> timedelta | None:
    """Return how far a server's clock is ahead of ours; None when it does not say."""
    try:
        stated = parsedate_to_datetime(_ask("GET", urljoin(url, "/")).headers["Date"])
    except (PacsAiError, KeyError, ValueError):
        return None  # whether it answers as it should is asked elsewhere
    if stated.tzinfo is None:
        stated = stated.replace(tzinfo=UTC)
    return stated - datetime.now(UTC)


def connects(host: str, port: int) -> bool:
    """Tell whether something takes a connection there."""
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False
