"""``pacs-ai check --sheet``: what the vendor of a PACS must know and set up, ready to paste.

From the same tables as the conformance statement.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from pydicom.uid import UID

from pacs_ai import __version__
from pacs_ai.certificates import fingerprint, held
from pacs_ai.cli.neighbours import contexts
from pacs_ai.cli.roles import accepted
from pacs_ai.settings import Confirm, DicomDestination, Listener, Peer, Settings
from pacs_ai.settings.sections import LOOPBACK

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - shown, not listened on


def text(settings: Settings) -> str:
    """Return the sheet for these settings."""
    return "\n".join(
        [
            f"PACS AI {__version__} at {settings.site.name}: DICOM connection sheet",
            "",
            *_receiving(settings),
            "",
            *_sending(settings),
            "",
            *_asking(settings),
            "",
            *_accepted(),
        ]
    )


def accepted_classes() -> list[tuple[str, str]]:
    """Return name and UID of every Storage SOP Class that the listener accepts, by name."""
    return sorted((name, uid) for uid, name in accepted()[0].items())


def _receiving(settings: Settings) -> Iterator[str]:
    face = settings.listener
    yield "1. Please add this destination (Verification SCP, Storage SCP)"
    yield from _aligned(
        [
            ("AE title", ", ".join((face.ae_title, *face.also_called))),
            ("address", _address(face)),
            ("port", face.port),
            ("security", _security(face)),
            *_certificate(settings),
            ("answer 0x0000", "file and ledger are on disk; send again after any other status"),
        ]
    )
    yield "   Admitted are these callers, by AE title and address together:"
    yield from _aligned(
        (name, f"{', '.join(peer.ae_titles)} from {', '.join(peer.addresses)}{_bound(peer)}")
        for name, peer in settings.peers.items()
    )


def _address(face: Listener) -> str:
    if face.host in _EVERYWHERE:
        return f"of {socket.gethostname()}, in the network of the PACS"
    if face.host in LOOPBACK:
        return f"{face.host} (this machine alone: for a PACS elsewhere set listener.host)"
    return face.host


def _security(face: Listener) -> str:
    if face.certificate is None:
        return "none: plain DICOM on a closed network"
    asked = "" if face.client_authorities is None else "; mutual: please show a certificate"
    return f"TLS 1.2 or 1.3 (BCP 195), no plain DICOM on this port{asked}"


def _certificate(settings: Settings) -> Iterator[tuple[str, str]]:
    face = settings.listener
    if face.certificate is None:
        return
    try:
        shown = f"SHA-256 {fingerprint(face.certificate)}"
    except (OSError, ValueError):
        shown = f"{face.certificate} cannot be read"
    until = {one.setting: one.ends for one in held(settings)}.get("listener.certificate")
    good = "cannot be used today" if until is None else f"good until {until:%Y-%m-%d}"
    yield "its certificate", f"{shown}, {good}"
    if face.client_authorities is not None:
        yield (
            "yours is of",
            f"an authority in {face.client_authorities.name}, or listed there itself",
        )


def _bound(peer: Peer) -> str:
    if peer.certificates is None:
        return ""
    return f", showing {' or '.join(peer.certificates) or 'nothing: it opens no association'}"


def _sending(settings: Settings) -> Iterator[str]:
    yield "2. Please accept what it sends back (Storage SCU), in Explicit VR Little Endian"
    yield "   Manufacturer PACS AI, new Series in the same Study, unverified AI results"
    if not [*_targets(settings)]:
        yield "   Nothing: no destination of results is a PACS."
    for name, target in _targets(settings):
        yield f"   {name}: {target.calling_ae_title} calls {_called(target)}"
        yield from _aligned((UID(one).name, one) for one, _ in contexts(target))
    if settings.delivery == "hold":
        yield "   Not yet: delivery is held at the gateway."


def _asking(settings: Settings) -> Iterator[str]:
    yield "3. Please answer what it asks"
    rows = [] if [*_targets(settings)] else [("nothing", "no destination of results is a PACS")]
    for name, target in _targets(settings):
        called = f"{target.calling_ae_title} calls {_called(target)}"
        rows.append((name, f"C-ECHO, {called}"))
        if target.confirm is Confirm.C_FIND:
            rows.append((name, f"C-FIND, Study Root, level STUDY, {called}"))
        if target.confirm is Confirm.QIDO:
            rows.append((name, f"QIDO-RS, search for Studies, at {target.qido_url}"))
    yield from _aligned(rows)


def _accepted() -> Iterator[str]:
    yield "4. Transfer syntaxes that it accepts for every SOP Class, preferred in this order"
    yield from _aligned((UID(one).name, one) for one in accepted()[1])
    yield ""
    yield "5. Storage SOP Classes that it accepts"
    yield from _aligned(accepted_classes())


def _targets(settings: Settings) -> Iterator[tuple[str, DicomDestination]]:
    for name in settings.asked_destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination):
            yield name, target


def _called(target: DicomDestination) -> str:
    security = "" if target.tls is None else ", with TLS"
    return f"{target.ae_title} at {target.host}:{target.port}{security}"


def _aligned(rows: Iterable[tuple[object, object]]) -> list[str]:
    listed = [(str(one), str(other)) for one, other in rows]
    width = max((len(one) for one, _ in listed), default=0)
    return [f"   {one:<{width}}  {other}" for one, other in listed]
