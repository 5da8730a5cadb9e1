"""What does a PACS say of a Study? C-FIND at Study level (PS3.4 Annex C, Study Root)."""

from __future__ import annotations

import time

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
)

from pacs_ai.errors import TransientError
from pacs_ai.peers.association import TIMEOUTS, Timeouts, associate
from pacs_ai.peers.identity import IDENTITY, MOST_ANSWERS, NotOfferedError
from pacs_ai.settings import DicomDestination

CONTEXT = (str(StudyRootQueryRetrieveInformationModelFind), str(ImplicitVRLittleEndian))
"""SOP Class and transfer syntax that are proposed."""

_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)


def find_study(
    study_instance_uid: str, destination: DicomDestination, *, timeouts: Timeouts = TIMEOUTS
) -> tuple[Dataset, ...]:
    """Ask a PACS for the identity of a Study.

    Parameters
    ----------
    study_instance_uid : str
    destination : DicomDestination
    timeouts : Timeouts, optional
        ``dimse`` is also the most that all answers together may take.

    Returns
    -------
    tuple of Dataset
        One for each match, with :data:`~pacs_ai.peers.identity.IDENTITY`; empty when the PACS does
        not know the Study.

    Raises
    ------
    TransientError
        When there was no whole answer.
    NotOfferedError
        When the peer does not take the question at all.
    """
    peer = f"{destination.ae_title} at {destination.host}:{destination.port}"
    with associate(
        host=destination.host,
        port=destination.port,
        called=destination.ae_title,
        calling=destination.calling_ae_title,
        tls=destination.tls,
        contexts=[CONTEXT],
        timeouts=timeouts,
    ) as association:
        if not association.is_established:
            raise NotOfferedError(
                f"{peer} does not take C-FIND (Study Root): enable it there, or set confirm"
            )
        return _matches(association, _identifier(study_instance_uid), peer, timeouts)


def _identifier(study_instance_uid: str) -> Dataset:
    # Empty keys ask for the value (PS3.4 C.2.2.2.3, universal matching).
    identifier = Dataset()
    for keyword in IDENTITY:
        setattr(identifier, keyword, "")
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_instance_uid
    return identifier


def _matches(
    association: Association, identifier: Dataset, peer: str, timeouts: Timeouts
) -> tuple[Dataset, ...]:
    ends = time.monotonic() + timeouts.dimse
    found: list[Dataset] = []
    for status, match in association.send_c_find(identifier, CONTEXT[0]):
        if "Status" not in status:
            raise TransientError(
                f"{peer} gave no whole answer to a C-FIND: may this AE title query there?"
            )
        if status.Status == _SUCCESS:
            return tuple(found)
        if status.Status not in _PENDING:
            raise TransientError(f"{peer} answered the C-FIND with status 0x{status.Status:04X}")
        if match is None:
            raise TransientError(f"{peer} answered the C-FIND with what cannot be read")
        if match.get("StudyInstanceUID") == identifier.StudyInstanceUID:
            found.append(match)
        if len(found) > MOST_ANSWERS or time.monotonic() > ends:
            break
    raise TransientError(f"{peer} does not come to an end of its answers to a C-FIND")
