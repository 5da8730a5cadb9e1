"""Results to SOP Instances: one file and one row in :data:`ENCODERS` for each kind that is written.

Each file has one function ``encode(work) -> tuple[Dataset, ...]``. Patient and Study are copied
from the source's header only; every date and UID derives from :class:`Stamp`, so that the same work
gives the same bytes in every process and on every day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from pacs_ai.results import JobResults
from pacs_ai.study import Study

TRANSFER_SYNTAX_UID = str(ExplicitVRLittleEndian)
"""Of everything that is written: every peer takes it, and no viewer needs a decoder."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Everything that reaches the bytes of an object beside source and results.

    Attributes
    ----------
    when : datetime
        Creation time of the work row, in the site's time zone (aware). Every date and time that the
        gateway writes is this one.
    identity : str
        Digest of what decides the objects: installation, Study version or Job key, software. Result
        UIDs derive from it: ``derived_uid("instance", stamp.identity, kind, number)``.
    installation : str
        Id of this installation; Device UIDs derive from it and the model's version.
    site : str
        Name of the site, as Institution of the gateway's equipment is *not* invented from it.
    production : bool
        When False, Series Descriptions say that this is not a production gateway.
    prefix : str
        First word of every Series Description.
    software_version : str
        Version of the gateway.
    """

    when: datetime
    identity: str
    installation: str
    site: str
    production: bool
    prefix: str
    software_version: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """Work for one encoder.

    Attributes
    ----------
    study : Study
        The Study version: headers, and paths to pixel data where an encoder shows the source.
    entries : tuple of JobResults
        One for the kinds written for each Job; all of the Study version's for a kind written once
        a Study.
    stamp : Stamp
    """

    study: Study
    entries: tuple[JobResults, ...]
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Encoder:
    """A row of :data:`ENCODERS`.

    Attributes
    ----------
    function : str
        Dotted name, imported on use.
    sop_class_uid, modality : str
        What it writes.
    once_a_study : bool
        Written once for a Study version, from all its Jobs, rather than for each Job.
    """

    function: str
    sop_class_uid: str
    modality: str
    once_a_study: bool = False

    def __call__(self, work: Encoding) -> tuple[Dataset, ...]:
        """Encode; an empty tuple when this kind has nothing to say of these results."""
        module, _, name = self.function.partition(":")
        encode: Callable[[Encoding], tuple[Dataset, ...]] = getattr(import_module(module), name)
        return encode(work)


ENCODERS: dict[str, Encoder] = {
    "segmentation": Encoder("pacs_ai.encoding.segmentation:encode", SegmentationStorage, "SEG"),
    "report": Encoder("pacs_ai.encoding.report:encode", Comprehensive3DSRStorage, "SR"),
    "narrative": Encoder("pacs_ai.encoding.narrative:encode", EnhancedSRStorage, "SR"),
    "capture": Encoder(
        "pacs_ai.encoding.capture:encode", SecondaryCaptureImageStorage, "OT", once_a_study=True
    ),
}
"""Kinds of SOP Instance by name; the order gives the Series Numbers (9001 and up)."""


def each_job() -> dict[str, Encoder]:
    """Return the encoders that write for each Job."""
    return {kind: one for kind, one in ENCODERS.items() if not one.once_a_study}


def once_a_study() -> dict[str, Encoder]:
    """Return the encoders that write once for a Study."""
    return {kind: one for kind, one in ENCODERS.items() if one.once_a_study}


def on_volume(dataset: Dataset) -> bool:
    """Tell whether the frames of an object lie in the patient side by side, as slices do.

    A slide's do not, nor do those that repeat one place (phases, echoes) or lie in several directions.
    """
    if "FrameOfReferenceUID" not in dataset or "TotalPixelMatrixRows" in dataset:
        return False
    pointers = {one.DimensionIndexPointer for one in dataset.get("DimensionIndexSequence", ())}
    shared = dataset.get("SharedFunctionalGroupsSequence", ())
    return Tag("TemporalPositionIndex") not in pointers and any(
        "PlaneOrientationSequence" in one for one in shared
    )
