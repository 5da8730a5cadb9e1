"""What the listener does at each event: admit or reject, echo, store.

pynetdicom's two kinds of event: ``requested`` is told of an association and may reject it; ``echo`` and
``store`` return the status that goes back. Statuses are those of PS3.4 B.2.3 and PS3.7 Annex C.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from struct import unpack

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Duplicate, Refused, Stored
from pacs_ai.spool import SpoolFullError

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
CANNOT_UNDERSTAND = 0xC000

_REJECTED_PERMANENT, _REJECTED_TRANSIENT = 0x01, 0x02
_SOURCE_USER, _SOURCE_PRESENTATION = 0x01, 0x03
_CALLING_NOT_RECOGNISED, _LOCAL_LIMIT = 0x03, 0x02

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
        """Reject who is not a configured peer, and everyone while the disk is nearly full.

        Rejects with *calling AE title not recognised* (permanent), or *local limit exceeded*
        (transient) (PS3.8 section 9.3.4).
        """
        reason = self._reason_to_reject(event.assoc)
        if reason is not None:
            event.assoc.acse.send_reject(*reason)
            # Without this the library closes the connection before the answer has left.
            event.assoc.kill()

    def _reason_to_reject(self, association: Association) -> tuple[int, int, int] | None:
        try:
            if self._peer(association) is None:
                log.warning("association rejected: not a configured peer and address")
                return _REJECTED_PERMANENT, _SOURCE_USER, _CALLING_NOT_RECOGNISED
            if self._disk_is_nearly_full():
                log.error("association rejected: the spool's disk is nearly full")
                return _REJECTED_TRANSIENT, _SOURCE_PRESENTATION, _LOCAL_LIMIT
        except Exception:  # the library would go on and accept whom nobody judged
            log.exception("association rejected: the gateway could not judge it")
            return _REJECTED_TRANSIENT, _SOURCE_PRESENTATION, _LOCAL_LIMIT
        return None

    def _disk_is_nearly_full(self) -> bool:
        return self._gateway.spool.free_bytes() < self._gateway.settings.listener.minimum_free

    def echo(self, event: Event) -> int:
        """Answer C-ECHO (PS3.7 section 9.1.5)."""
        return SUCCESS

    def store(self, event: Event) -> Dataset | int:
        """Take in one Instance; answer success only when it is durable.

        Returns 0x0000 (stored, or exactly these bytes held already), 0xA700, 0xA900, 0xC000, 0x0124 or
        0x0110; the library's own 0xC211 never goes out.
        """
        received = event.dataset_path
        if received is None:
            return _status(CANNOT_UNDERSTAND, "the C-STORE came without a data set")
        path = Path(received)
        try:
            return self._store(event, path)
        except SpoolFullError:
            return _status(OUT_OF_RESOURCES, "the disk does not take it now")
        except Exception:  # the rim of the DICOM face: whatever happens, the peer gets an answer
            log.exception("an Instance could not be taken in")
            return _status(PROCESSING_FAILURE, "the gateway could not take it in")
        finally:
            path.unlink(missing_ok=True)

    def _store(self, event: Event, path: Path) -> Dataset | int:
        peer = self._peer(event.assoc)
        if peer is None:
            return _status(NOT_AUTHORISED, "not a configured peer")
        if self._disk_is_nearly_full():
            return _status(OUT_OF_RESOURCES, "the disk is nearly full")
        request = event.request
        assert isinstance(request, C_STORE)  # noqa: S101 - bound to EVT_C_STORE only
        context = Context(
            SOPClassUID=str(request.AffectedSOPClassUID),
            SOPInstanceUID=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
        )
        incoming = self._gateway.incoming(peer, context)
        try:
            _copy_data_set(path, incoming.write)
            answer = incoming.commit()
        finally:
            incoming.discard()
        match answer:
            case Stored() | Duplicate():
                return SUCCESS
            case Refused(reason, status):
                return _status(status, reason)

    def _peer(self, association: Association) -> str | None:
        requestor = association.requestor
        title = str(requestor.primitive.calling_ae_title if requestor.primitive else "").strip()
        return self._gateway.settings.peer_of(title, str(requestor.address))


def _copy_data_set(path: Path, write: Callable[[bytes], None]) -> None:
    """Hand on the data set of a file, without the preamble and File Meta that the library wrote."""
    with path.open("rb") as file:
        # Preamble, prefix and the group length element stand before the rest (PS3.10 section 7.1).
        (meta_length,) = unpack("<I", file.read(144)[140:])
        file.seek(144 + meta_length)
        while piece := file.read(_PIECE):
            write(piece)


def _status(code: int, comment: str) -> Dataset:
    status = Dataset()
    status.Status = code
    status.ErrorComment = comment[:64]
    return status
