"""Would a peer take what it is to get? Presentation contexts, proposed and not used (PS3.8 9.3.2)."""

from __future__ import annotations

from collections.abc import Collection

from pacs_ai.peers.association import TIMEOUTS, Timeouts, accepts, associate
from pacs_ai.settings import DicomDestination


def refused(
    destination: DicomDestination,
    contexts: Collection[tuple[str, str]],
    *,
    timeouts: Timeouts = TIMEOUTS,
) -> tuple[tuple[str, str], ...]:
    """Return the contexts that a peer does not take, in their order.

    Parameters
    ----------
    destination : DicomDestination
    contexts : collection of (str, str)
        SOP Class UID and Transfer Syntax UID.
    timeouts : Timeouts, optional

    Raises
    ------
    TransientError
        When there is no association.
    """
    with associate(
        host=destination.host,
        port=destination.port,
        called=destination.ae_title,
        calling=destination.calling_ae_title,
        tls=destination.tls,
        contexts=contexts,
        timeouts=timeouts,
    ) as association:
        return tuple(one for one in contexts if not accepts(association, *one))
