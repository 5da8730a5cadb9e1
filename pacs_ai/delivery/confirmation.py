"""Right before sending: does the destination still hold the Study, and under the same identity?

A patient merged, a Study moved or deleted while the models worked: results that arrive then would stand
under the wrong patient, or alone. What is compared is what the results themselves say.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread

from pacs_ai.delivery import Find, Outgoing
from pacs_ai.errors import ConfigError, TransientError
from pacs_ai.peers.identity import IDENTITY, NotOfferedError, differing
from pacs_ai.settings import DicomDestination


def doubt(batch: tuple[Outgoing, ...], destination: DicomDestination, find: Find) -> str | None:
    """Return why a batch may not be sent, or None when the destination confirms its Study.

    Parameters
    ----------
    batch : tuple of Outgoing
        Of one Study.
    destination : DicomDestination
    find : Find
        Asks the destination for a Study.

    Returns
    -------
    str or None
        Names keywords of elements and what to do, never a value.

    Raises
    ------
    TransientError
        When the destination gave no answer, or its key cannot be read: nothing is known, so nothing is sent.
    """
    study = batch[0].StudyInstanceUID
    try:
        held = find(study, destination)
    except ConfigError as error:  # while its key is rotated it may be away for a moment
        raise TransientError(f"{destination.ae_title} cannot be asked: {error}") from error
    except NotOfferedError as error:
        return f"its identity could not be confirmed: {error}"
    if not held:
        return (
            f"{destination.ae_title} does not have the Study (any more): find out whether it was "
            "deleted, merged or never sent there; then release it, or leave it held"
        )
    # A Study that the destination holds under two patients is in doubt as a whole.
    found = {
        keyword
        for ours in map(_identity, batch)
        for theirs in held
        for keyword in differing(ours, theirs)
    }
    if not found:
        return None
    named = ", ".join(keyword for keyword in IDENTITY if keyword in found)
    return (
        f"{destination.ae_title} holds the Study with another {named}: find out which one is right; "
        "send the corrected Study again, or correct it there and release it"
    )


def _identity(one: Outgoing) -> Dataset:
    return dcmread(one.path, stop_before_pixels=True, specific_tags=[*IDENTITY])
