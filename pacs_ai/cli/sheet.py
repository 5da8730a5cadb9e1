"""``pacs-ai check --sheet``: what the administrator of a PACS has to enter, to paste into a mail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_ai.delivery import wanted
from pacs_ai.encoding import ENCODERS
from pacs_ai.settings import DicomDestination, Settings


def sheet(settings: Settings, *, transfer_syntaxes: Sequence[str], maximum_pdu: int) -> str:
    """Return the sheet as plain text.

    Parameters
    ----------
    settings : Settings
    transfer_syntaxes : sequence of str
        UIDs that the listener takes.
    maximum_pdu : int
        Its maximum PDU size in bytes.
    """
    face = settings.listener
    lines = [
        f"PACS AI at {settings.site.name}: what to enter in the PACS",
        "",
        "Send Studies to",
        _line("AE title", face.ae_title),
        _line("address", face.host),
        _line("port", str(face.port)),
        _line("TLS", "none"),
        _line("services", "Verification (C-ECHO), Storage (C-STORE)"),
        _line("SOP Classes", "every standard Storage SOP Class"),
        _line("transfer syntaxes", UID(transfer_syntaxes[0]).name),
        *(_line("", UID(one).name) for one in transfer_syntaxes[1:]),
        _line("maximum PDU", f"{maximum_pdu} bytes"),
        _line("associations", f"{face.maximum_associations} at once"),
    ]
    for name, peer in settings.peers.items():
        titles = ", ".join(peer.ae_titles)
        lines += ["", f"From {name}, associations are taken"]
        lines += [_line("calling AE title", titles), _line("from", ", ".join(peer.addresses))]
    for name in settings.destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination):
            lines += ["", *_results(name, target)]
    return "\n".join(lines) + "\n"


def _results(name: str, target: DicomDestination) -> Iterator[str]:
    yield f"To {name}, results are sent"
    yield _line("called AE title", target.ae_title)
    yield _line("address", f"{target.host}, port {target.port}")
    yield _line("calling AE title", target.calling_ae_title)
    yield _line("services", "Verification (C-ECHO), Storage (C-STORE)")
    classes = [row.sop_class for kind, row in ENCODERS.items() if _goes(kind, target)]
    for number, one in enumerate(classes):
        yield _line("" if number else "SOP Classes", f"{UID(one).name} ({one})")
    yield _line("transfer syntax", UID(ExplicitVRLittleEndian).name)


def _goes(kind: str, target: DicomDestination) -> bool:
    return wanted(kind, volumetric=True, profile=target.profile, narrative=target.narrative)


def _line(what: str, value: str) -> str:
    return f"  {what:<19}{value}"
