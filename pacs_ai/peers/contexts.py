"""What a peer would take: presentation contexts proposed and nothing sent (PS3.8 section 9.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_ai.peers.association import accepts, associate
from pacs_ai.settings import DicomDestination


def refused_classes(peer: DicomDestination, sop_classes: Sequence[UID]) -> list[UID]:
    """Return those SOP Classes that a peer does not take in Explicit VR Little Endian.

    Parameters
    ----------
    peer : DicomDestination
    sop_classes : sequence of UID
        At most 128.

    Raises
    ------
    TransientError
        When there is no association.
    """
    with associate(
        host=peer.host,
        port=peer.port,
        called=peer.ae_title,
        calling=peer.calling_ae_title,
        contexts=[(one, ExplicitVRLittleEndian) for one in sop_classes],
    ) as association:
        return [one for one in sop_classes if not accepts(association, one, ExplicitVRLittleEndian)]
