"""What the listener does at each event: admit or reject, echo, store.

pynetdicom's two kinds of event: ``requested`` is told of an association and may reject it; ``echo`` and
``store`` return the status that goes back. Statuses are those of PS3.4 B.2.3 and PS3.7 Annex C.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from struct import unpack
from typing import Protocol, cast

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts

from listener import tls
from pacs_ai.gateway import Gateway
from pacs_ai.intake import MISMATCH, Context, Incoming, Refused
from pacs_ai.spool import SpoolFullError

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
CLASS_UNSUPPORTED = 0x0122
CANNOT_UNDERSTAND = 0xC000

_REJECTED_PERMANENT, _REJECTED_TRANSIENT = 0x01, 0x02
_SOURCE_USER, _SOURCE_PRESENTATION = 0x01, 0x03
_CALLING_NOT_RECOGNISED, _CALLED_NOT_RECOGNISED, _LOCAL_LIMIT = 0x03, 0x07, 0x02
_CONTEXT_NOT_SUPPORTED = 0x02

_DICOM = "1.2.840.10008.3.1.1.1"
"""The one application context there is (PS3.7 Annex A.2.1)."""
_STORED = frozenset(str(one.abstract_syntax) for one in AllStoragePresentationContexts)

_PIECE = 1024 * 1024


class Handlers:
    """The handlers of one listener process.

    Parameters
    ----------
    gateway : Gateway
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def requested(self, event: Event) -> None:
        """Reject who is not a configured peer, and everyone while disk or backlog is nearly full.

        Rejects with *called* or *calling AE title not recognised* (permanent), or *local limit
        exceeded* (transient) (PS3.8 section 9.3.4).
        """
        reason = self._reason_to_reject(event.assoc)
        if reason is not None:
            event.assoc.acse.send_reject(*reason)
            # Without this the library closes the connection before the answer has left.
            event.assoc.kill()

    def _reason_to_reject(self, association: Association) -> tuple[int, int, int] | None:
        try:
            stranger = self._stranger(association)
            if stranger is not None:
                why, reason = stranger
                log.warning("association rejected: %s", why, extra=self._who(association))
                return _REJECTED_PERMANENT, _SOURCE_USER, reason
            if not self._gateway.has_room():
                log.error("association rejected: the spool's disk is nearly full")
                return _REJECTED_TRANSIENT, _SOURCE_PRESENTATION, _LOCAL_LIMIT
            if self._gateway.too_much_waits():
                log.error("association rejected: too much work is waiting")
                return _REJECTED_TRANSIENT, _SOURCE_PRESENTATION, _LOCAL_LIMIT
        except Exception:  # the library would go on and accept whom nobody judged
            log.exception("association rejected: the gateway could not judge it")
            return _REJECTED_TRANSIENT, _SOURCE_PRESENTATION, _LOCAL_LIMIT
        return None

    def _stranger(self, association: Association) -> tuple[str, int] | None:
        """Return why a requestor is nobody's peer here, and the reason that it is told."""
        request = association.requestor.primitive
        if request is not None and request.application_context_name != _DICOM:
            return "not DICOM's application context", _CONTEXT_NOT_SUPPORTED
        if not self._is_called(association):
            return "called by a title that is not the gateway's", _CALLED_NOT_RECOGNISED
        if self._peer(association) is None:
            return "not a configured peer, address and certificate", _CALLING_NOT_RECOGNISED
        return None

    def _is_called(self, association: Association) -> bool:
        own = self._gateway.settings.listener
        return _titles(association)[1] in (own.ae_title, *own.also_called)

    def echo(self, event: Event) -> int:
        """Answer C-ECHO (PS3.7 section 9.1.5)."""
        return SUCCESS

    def receive(self, association: Association) -> Callable[[StoreRequest, str], Reception]:
        """Return what begins to take in an association's Instances; whatever is wrong becomes a status."""
        return partial(Reception, self._gateway, self._peer(association))

    def store(self, event: Event) -> Dataset | int:
        """Take in one Instance that the library has received into a file (plain transport)."""
        received = event.dataset_path
        request = cast("StoreRequest", event.request)
        syntax = str(event.context.transfer_syntax)
        reception = self.receive(event.assoc)(request, syntax)
        try:
            if received is not None:
                reception.take(Path(received))
            return reception.finish()
        finally:
            reception.discard()
            if received is not None:
                Path(received).unlink(missing_ok=True)

    def _peer(self, association: Association) -> str | None:
        address = str(association.requestor.address)
        certificate = tls.shown_by(association)
        return self._gateway.settings.peer_of(_titles(association)[0], address, certificate)

    def _who(self, association: Association) -> dict[str, object]:
        """Return what the log may say of a stranger: a title that nobody configured may be any text."""
        title = _titles(association)[0]
        peers = self._gateway.settings.peers.items()
        return {
            "address": str(association.requestor.address),
            "title_of": [name for name, peer in peers if title in peer.ae_titles],
        }


class StoreRequest(Protocol):
    """What is asked of a C-STORE-RQ; the library's primitive has it, and the hardened transport's own."""

    @property
    def AffectedSOPClassUID(self) -> object:  # noqa: N802 - the element's own keyword
        ...

    @property
    def AffectedSOPInstanceUID(self) -> object:  # noqa: N802
        ...


class Reception:
    """One Instance on its way in by C-STORE; success is said only when it is durable.

    Whatever happens inside becomes the status: 0x0000 (stored, or exactly these bytes held already),
    0xA700, 0xA900, 0xC000, 0x0122, 0x0124 or 0x0110. The library's own 0xC211 never goes out.

    Parameters
    ----------
    gateway : Gateway
    peer : str or None
        Name of the peer that sends it; None when it is not a configured one.
    request : StoreRequest
    transfer_syntax_uid : str
        As negotiated for the presentation context.

    Attributes
    ----------
    room : callable
        Where the next piece goes, so many bytes; None when it has to be written.
    """

    def __init__(
        self, gateway: Gateway, peer: str | None, request: StoreRequest, transfer_syntax_uid: str
    ) -> None:
        self._gateway = gateway
        self._incoming: Incoming | None = None
        self._refusal: Dataset | None = None
        self.room = _no_room
        if peer is None:
            self._refusal = _status(NOT_AUTHORISED, "not a configured peer")
            return
        context = Context(
            SOPClassUID=str(request.AffectedSOPClassUID),
            SOPInstanceUID=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=transfer_syntax_uid,
        )
        if not (context.SOPClassUID and context.SOPInstanceUID):
            log.warning("an Instance was refused: a UID of its command is none")
            self._refusal = _status(MISMATCH, "a UID of the command is none (PS3.5 section 9.1)")
            return
        if context.SOPClassUID not in _STORED:  # whatever the context was negotiated for
            log.warning("an Instance was refused: its class is no Storage SOP Class")
            self._refusal = _status(CLASS_UNSUPPORTED, "no Storage SOP Class that is taken here")
            return
        try:
            if not gateway.has_room():
                self._refusal = _status(OUT_OF_RESOURCES, "the disk is nearly full")
            else:
                incoming = self._incoming = gateway.incoming(peer, context)
                self.room = incoming.room
        except Exception as error:
            self._refuse(error)

    def write(self, view: bytes | memoryview) -> None:
        """Take a piece of the data set, as it came."""
        if self._incoming is None:
            return
        try:
            self._incoming.write(view)
        except Exception as error:
            self._refuse(error)

    def take(self, file: Path) -> None:
        """Take the data set of a file that the library has received."""
        try:
            _copy_data_set(file, self.write)
        except OSError:  # it cannot be read again
            self._refuse(SpoolFullError("the library's own file cannot be read"))

    def finish(self) -> Dataset | int:
        """Make the Instance durable and return its status; ``discard`` comes after it."""
        if self._refusal is None and self._incoming is not None and self._incoming.size:
            try:
                receipt = self._incoming.commit()
            except Exception as error:
                self._refuse(error)
            else:
                if not isinstance(receipt, Refused):
                    return SUCCESS
                self._refusal = _status(receipt.status, receipt.reason)
        refusal = self._refusal or _status(CANNOT_UNDERSTAND, "the C-STORE came without a data set")
        self._gateway.refused(refusal.Status)
        return refusal

    def discard(self) -> None:
        """Forget what came; safe to call twice."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _refuse(self, error: Exception) -> None:
        # The rim of the DICOM face: whatever happens, the peer gets an answer.
        if isinstance(error, SpoolFullError):
            self._refusal = _status(OUT_OF_RESOURCES, "the disk does not take it now")
        else:
            log.error("an Instance could not be taken in", exc_info=error)
            self._refusal = _status(PROCESSING_FAILURE, "the gateway could not take it in")
        self.discard()


def _no_room(size: int) -> memoryview | None:
    return None


def _copy_data_set(path: Path, write: Callable[[bytes], None]) -> None:
    """Hand on the data set of a file, without the preamble and File Meta that the library wrote."""
    with path.open("rb") as file:
        # Preamble, prefix and the group length element stand before the rest (PS3.10 section 7.1).
        (meta_length,) = unpack("<I", file.read(144)[140:])
        file.seek(144 + meta_length)
        while piece := file.read(_PIECE):
            write(piece)


def _titles(association: Association) -> tuple[str, str]:
    """Return the calling and the called AE title."""
    request = association.requestor.primitive
    if request is None:
        return "", ""
    return str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()


def _status(code: int, comment: str) -> Dataset:
    status = Dataset()
    status.Status = code
    status.ErrorComment = comment[:64]
    return status
