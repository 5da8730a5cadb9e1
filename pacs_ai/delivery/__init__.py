"""Ways out: one file and one row in :data:`DESTINATIONS` for each kind of destination.

Each file has one function ``send(batch, destination) -> tuple[Receipt, ...]`` with one Receipt for
each Instance of the batch, in its order. It sends the stored bytes as they are and never rebuilds
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_ai.settings import Confirm, DicomDestination, FolderDestination, Profile


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One SOP Instance to deliver: a DICOM file at rest, sent as it is."""

    SOPInstanceUID: str
    SOPClassUID: str
    StudyInstanceUID: str
    transfer_syntax_uid: str
    kind: str
    path: Path


class Answer(StrEnum):
    """What is known of an Instance after an attempt."""

    STORED = "stored"
    """The destination said it has it (success, or a warning noted in the detail)."""
    LATER = "later"
    """Refused for now (out of resources, not connected): send again later."""
    UNKNOWN = "unknown"
    """It may have arrived: the same bytes go again under the same UID."""
    REFUSED = "refused"
    """Refused for good: a person must look."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination answered for one Instance.

    Attributes
    ----------
    SOPInstanceUID : str
    answer : Answer
    status : int or None
        C-STORE status where one came back (PS3.4 B.2.3).
    detail : str
        What a person needs to know; no dataset text.
    """

    SOPInstanceUID: str
    answer: Answer
    status: int | None = None
    detail: str = ""


Send = Callable[[tuple[Outgoing, ...], FolderDestination | DicomDestination], tuple[Receipt, ...]]

DESTINATIONS: dict[str, str] = {
    "dicom": "pacs_ai.delivery.storage:send",
    "folder": "pacs_ai.delivery.folder:send",
}

Find = Callable[[str, DicomDestination], tuple[Dataset, ...]]

CONFIRMATIONS: dict[Confirm, str] = {
    Confirm.C_FIND: "pacs_ai.peers.find:find_study",
    Confirm.QIDO: "pacs_ai.peers.qido:find_study",
}
"""How a destination is asked for a Study; each row takes its UID and the destination."""


def sender(kind: str) -> Send:
    """Return the function that delivers to a kind of destination; it is imported on first use."""
    module, _, name = DESTINATIONS[kind].partition(":")
    function: Send = getattr(import_module(module), name)
    return function


def asker(confirm: Confirm) -> Find:
    """Return the function that asks a destination for a Study; it is imported on first use."""
    module, _, name = CONFIRMATIONS[confirm].partition(":")
    function: Find = getattr(import_module(module), name)
    return function


def doubt(
    batch: tuple[Outgoing, ...], destination: FolderDestination | DicomDestination
) -> str | None:
    """Return why a batch may not be sent now, or None; see :mod:`pacs_ai.delivery.confirmation`.

    None too where the destination is not to be asked, as the settings say.

    Raises
    ------
    TransientError
        When the destination gave no answer.
    """
    if isinstance(destination, FolderDestination) or destination.confirm is Confirm.OFF:
        return None
    find = asker(destination.confirm)
    found: str | None = import_module("pacs_ai.delivery.confirmation").doubt(
        batch, destination, find
    )
    return found


def wanted(kind: str, *, volumetric: bool, profile: Profile, narrative: bool) -> bool:
    """Tell whether a destination gets a kind of SOP Instance.

    Parameters
    ----------
    kind : str
        Row of ``pacs_ai.encoding.ENCODERS``.
    volumetric : bool
        Whether it lies on a volume (:func:`pacs_ai.encoding.on_volume`).
    profile : Profile
        The destination's: ``basic`` gets captures, text and segmentations on volumes; ``all``
        everything.
    narrative : bool
        Whether the site releases draft reports to this destination.
    """
    if kind == "narrative":
        return narrative
    if profile is Profile.ALL:
        return True
    return kind == "capture" or (kind == "segmentation" and volumetric)
