"""Results to a Storage SCP by C-STORE (PS3.4 Annex B): one association for each batch.

The stored bytes go out as they are, in the transfer syntax they are in and no other. What came of
each Instance is read from its status alone; what the peer wrote beside it (Error Comment) may quote
the data set and is left unread.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import _config, evt
from pynetdicom.association import Association

from pacs_ai.delivery import Answer, Outgoing, Receipt
from pacs_ai.errors import TransientError
from pacs_ai.peers.association import TIMEOUTS, Timeouts, accepts, associate
from pacs_ai.settings import DicomDestination

# Send the file's own bytes: pynetdicom would otherwise decode and encode every data set again.
_config.STORE_SEND_CHUNKED_DATASET = True

_SLOWEST_BYTES_A_SECOND = 1_000_000
_MEDIUM = 0

_STATUSES: dict[int, tuple[Answer, str]] = {
    0x0000: (Answer.STORED, ""),
    0x0001: (Answer.STORED, "stored; some optional attributes are not supported there"),
    0x0107: (Answer.STORED, "stored with a warning: attribute list error"),
    0x0116: (Answer.STORED, "stored with a warning: attribute value out of range"),
    # UIDs derive from the bytes, so what is there under this UID is this Instance.
    0x0111: (Answer.STORED, "was there before (duplicate SOP Instance)"),
    0xB000: (Answer.STORED, "stored with a warning: data elements were coerced"),
    0xB006: (Answer.STORED, "stored with a warning: data elements were discarded"),
    0xB007: (Answer.STORED, "stored with a warning: data set does not match the SOP Class"),
    0x0110: (Answer.LATER, "processing failure at the peer"),
    0x0213: (Answer.LATER, "resource limitation at the peer"),
    0x0117: (Answer.REFUSED, "the peer calls it an invalid SOP Instance"),
    0x0118: (Answer.REFUSED, "the peer does not know the SOP Class"),
    0x0119: (Answer.REFUSED, "the peer holds this UID as another SOP Class"),
    0x0122: (Answer.REFUSED, "the peer does not support the SOP Class: enable it there"),
    0x0124: (Answer.REFUSED, "the peer does not let this AE title store: allow it there"),
}

_RANGES: tuple[tuple[int, int, Answer, str], ...] = (
    (0xA700, 0xA7FF, Answer.LATER, "the peer is out of resources"),
    (0xA900, 0xA9FF, Answer.REFUSED, "the peer says the data set does not match the SOP Class"),
    (0xB000, 0xBFFF, Answer.STORED, "stored with a warning"),
    (0xC000, 0xCFFF, Answer.REFUSED, "the peer cannot understand the data set"),
    # Cancel and pending are no answers to a C-STORE (PS3.7 C.2, C.3): nothing is known.
    (0xFE00, 0xFF01, Answer.UNKNOWN, "the peer gave an answer that is none to a C-STORE"),
)


def send(
    batch: tuple[Outgoing, ...], destination: DicomDestination, *, timeouts: Timeouts = TIMEOUTS
) -> tuple[Receipt, ...]:
    """Send a batch over one association; never raises for what the network or the peer does.

    Parameters
    ----------
    batch : tuple of Outgoing
        Files at rest.
    destination : DicomDestination
    timeouts : Timeouts, optional

    Returns
    -------
    tuple of Receipt
        One for each Instance, in order. Without an association all are *later*; an Instance whose
        answer did not come is *unknown*, and those after it *later*.
    """
    if not batch:
        return ()
    contexts = sorted({(one.SOPClassUID, one.transfer_syntax_uid) for one in batch})
    try:
        with associate(
            host=destination.host,
            port=destination.port,
            called=destination.ae_title,
            calling=destination.calling_ae_title,
            tls=destination.tls,
            contexts=contexts,
            timeouts=timeouts,
        ) as association:
            answered: deque[int] = deque()
            # The library takes the next message for the answer, whichever message that answers.
            association.bind(evt.EVT_DIMSE_RECV, _note_answered, [answered])
            return tuple(
                _store(association, one, place % 0xFFFF + 1, answered, timeouts)
                for place, one in enumerate(batch)
            )
    except TransientError as error:
        return tuple(Receipt(one.SOPInstanceUID, Answer.LATER, detail=str(error)) for one in batch)


def read_status(status: int) -> tuple[Answer, str]:
    """Say what a C-STORE status means for the Instance (PS3.4 B.2.3, PS3.7 Annex C).

    Parameters
    ----------
    status : int
        As it came back.

    Returns
    -------
    answer : Answer
    detail : str
        Empty for success.
    """
    answer, words = _STATUSES.get(status) or next(
        ((answer, words) for first, last, answer, words in _RANGES if first <= status <= last),
        (Answer.REFUSED, "the peer answered a status that C-STORE does not define"),
    )
    return answer, f"{words} (0x{status:04X})" if words else ""


def _note_answered(event: evt.Event, answered: deque[int]) -> None:
    if "MessageIDBeingRespondedTo" in event.message.command_set:
        answered.append(event.message.command_set.MessageIDBeingRespondedTo)


def _store(
    association: Association,
    one: Outgoing,
    message_id: int,
    answered: deque[int],
    timeouts: Timeouts,
) -> Receipt:
    fault = _fault(one)
    if fault:
        return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=fault)
    if not accepts(association, one.SOPClassUID, one.transfer_syntax_uid):
        return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=_not_taken(one))
    # A large Instance takes its time on the wire before an answer can be expected.
    sending = one.path.stat().st_size / _SLOWEST_BYTES_A_SECOND
    association.dimse_timeout = timeouts.dimse + sending
    try:
        response = association.send_c_store(one.path, msg_id=message_id, priority=_MEDIUM)
    except RuntimeError:
        # The association ended before this Instance: nothing of it left the gateway.
        detail = "not sent: the association had ended"
        return Receipt(one.SOPInstanceUID, Answer.LATER, detail=detail)
    except OSError:
        association.abort()
        detail = "its stored file could not be read to the end: look at the spool"
        return Receipt(one.SOPInstanceUID, Answer.REFUSED, detail=detail)
    if "Status" not in response or answered.popleft() != message_id:
        # The peer's abort may not have been noticed yet: end it here, so that no more goes into it.
        association.abort()
        detail = "sent, but no answer to it came"
        return Receipt(one.SOPInstanceUID, Answer.UNKNOWN, detail=detail)
    answer, detail = read_status(response.Status)
    return Receipt(one.SOPInstanceUID, answer, response.Status, detail)


def _fault(one: Outgoing) -> str:
    """Return why the file at rest is not the Instance that was asked for, or nothing."""
    try:
        meta = read_file_meta_info(Path(one.path))
        found = (
            meta.MediaStorageSOPInstanceUID,
            meta.MediaStorageSOPClassUID,
            meta.TransferSyntaxUID,
        )
    except (OSError, InvalidDicomError, AttributeError):
        return "its stored file is missing or not DICOM: look at the spool"
    if found != (one.SOPInstanceUID, one.SOPClassUID, one.transfer_syntax_uid):
        return "its stored file holds another Instance than the ledger says: look at the spool"
    return ""


def _not_taken(one: Outgoing) -> str:
    sop_class, syntax = UID(one.SOPClassUID).name, UID(one.transfer_syntax_uid).name
    return f"the peer does not take {sop_class} in {syntax}: enable both there"
