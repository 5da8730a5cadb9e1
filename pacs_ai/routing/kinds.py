"""What an Instance is beside the image that a reader expects: one table, read from the header.

A screenshot, a dose report's picture or a bone-suppressed copy carries the Modality and the body part
of the image that it was made from. Each row of :data:`KINDS` returns the fact that gives one away, or
nothing. Words are looked for where a header speaks of one image, never in StudyDescription or
ProtocolName, which speak of the whole examination; of what stands there only the phrases of this
table are ever repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from pacs_ai.routing.words import Term
from pacs_ai.study import values

SPEAK_OF_ONE_IMAGE = (
    "SeriesDescription",
    "ImageType",
    "ImageComments",
    "DerivationDescription",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionDeviceProcessingCode",
)
"""Where a header says what was done to an image (PS3.3 C.7.6.1, C.8.11.3)."""

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "MG", "IO", "PX", "RF"})
# The names that makers of radiography systems give to their second pictures of an exposure. On a
# slice the same words name a kernel or a contrast.
_SECOND_PICTURE = Term(
    "",
    (
        *("BONE SUPPRESSED", "BONE SUPPRESSION", "SUPPRESSED BONE", "SUPPRESSED BONES"),
        *("RIB SUPPRESSED", "RIB SUPPRESSION", "BONE ONLY", "BONE IMAGE", "BONELESS"),
        *("SOFT TISSUE", "SOFTVIEW", "CLEARREAD", "DELTAVIEW", "COMPANION"),
        *("TEMPORAL SUBTRACTION", "ENERGY SUBTRACTION", "SUBTRACTED"),
    ),
    ("NECK SOFT TISSUE", "SOFT TISSUE NECK"),
)
# What is reckoned from slices and looks like one.
_RECKONED = Term(
    "",
    ("MIP", "MINIP", "MPR", "CPR", "VRT", "PROJECTION IMAGE", "VOLUME RENDERING", "SUBTRACTED"),
)
# No REPEAT: "chest PA repeat" may as well be the good one.
_REJECTED = Term(
    "",
    (
        *("REJECT", "REJECTED", "NON DIAGNOSTIC", "NONDIAGNOSTIC", "NOT DIAGNOSTIC"),
        *("NOT FOR DIAGNOSIS", "DO NOT USE"),
    ),
    ("NOT REJECTED",),
)
_SCREENSHOT = Term(
    "",
    (
        *("SCREENSHOT", "SCREEN SHOT", "SCREENSAVE", "SCREEN SAVE", "SCREENSAVES", "SCREEN SAVES"),
        *("SCREEN CAPTURE", "SCREENCAPTURE", "SAVED SCREEN"),
    ),
)
_DOSE = Term(
    "",
    (
        *("DOSE REPORT", "DOSE INFO", "DOSE SUMMARY", "DOSE RECORD", "DOSE SHEET", "DOSE PAGE"),
        *("PATIENT PROTOCOL", "DOSISBERICHT"),
    ),
)

_DOSE_CLASSES = frozenset(
    {
        uid.XRayRadiationDoseSRStorage,
        uid.EnhancedXRayRadiationDoseSRStorage,
        uid.RadiopharmaceuticalRadiationDoseSRStorage,
        uid.PatientRadiationDoseSRStorage,
    }
)
_FOR_PROCESSING_CLASSES = frozenset(
    {
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
    }
)
_SECONDARY_CAPTURES = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
_PRESENTATION_STATES = f"{uid.GrayscaleSoftcopyPresentationStateStorage.rpartition('.')[0]}."


def phrase_in(header: Dataset, term: Term, keywords: tuple[str, ...] = SPEAK_OF_ONE_IMAGE) -> str:
    """Return which element has which phrase of a term, such as ``ImageType has DERIVED``, or nothing."""
    for keyword in keywords:
        for value in values(header, keyword):
            phrase = term.found_in(value)
            if phrase is not None:
                return f"{keyword} has {phrase}"
    return ""


def _for_processing(header: Dataset) -> str:
    if _is(header, "PresentationIntentType", "FOR PROCESSING"):
        return "PresentationIntentType is FOR PROCESSING"
    return _of_class(header, _FOR_PROCESSING_CLASSES)


def _post_processed(header: Dataset) -> str:
    modality = "".join(values(header, "Modality")[:1]).upper()
    return phrase_in(header, _SECOND_PICTURE if modality in _RADIOGRAPHS else _RECKONED)


def _rejected(header: Dataset) -> str:
    return phrase_in(header, _REJECTED)


def _secondary_capture(header: Dataset) -> str:
    return _of_class(header, _SECONDARY_CAPTURES)


def _screenshot(header: Dataset) -> str:
    return phrase_in(header, _SCREENSHOT)


def _dose_report(header: Dataset) -> str:
    return _of_class(header, _DOSE_CLASSES) or phrase_in(header, _DOSE)


def _presentation_state(header: Dataset) -> str:
    (found,) = values(header, "SOPClassUID")[:1] or ("",)
    if found.startswith(_PRESENTATION_STATES):
        return f"SOPClassUID is {uid.UID(found).name}"
    return "Modality is PR" if _is(header, "Modality", "PR") else ""


def _quality_control(header: Dataset) -> str:
    # PS3.3 C.7.6.1 and C.7.1.1: the image, or its subject, is a phantom.
    for keyword in ("QualityControlImage", "QualityControlSubject"):
        if _is(header, keyword, "YES"):
            return f"{keyword} is YES"
    return ""


def _burned_in_text(header: Dataset) -> str:
    # Absent says nothing (PS3.3 C.7.6.1): only what the header states counts.
    if _is(header, "BurnedInAnnotation", "YES"):
        return "BurnedInAnnotation is YES"
    return ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an Instance may be.

    Attributes
    ----------
    words : str
        How it is named to people, such as ``a dose report``.
    fact : callable
        Returns what in a header makes an Instance one, or nothing.
    """

    words: str
    fact: Callable[[Dataset], str]


KINDS: Mapping[str, Kind] = {
    "for_processing": Kind("raw detector data", _for_processing),
    "post_processed": Kind("a post-processed picture", _post_processed),
    "rejected": Kind("a rejected image", _rejected),
    "quality_control": Kind("an image of a phantom", _quality_control),
    "secondary_capture": Kind("a secondary capture", _secondary_capture),
    "screenshot": Kind("a screenshot", _screenshot),
    "dose_report": Kind("a dose report", _dose_report),
    "presentation_state": Kind("a presentation state", _presentation_state),
    "burned_in_text": Kind("an image with burned-in text", _burned_in_text),
}
"""Kinds as rules name them."""

NO_RADIOGRAPH = (
    *("for_processing", "post_processed", "rejected", "quality_control"),
    *("screenshot", "dose_report"),
)
"""What is never taken for a radiograph, whatever a rule says."""


def fact_of(header: Dataset, kinds: Iterable[str] = KINDS) -> str:
    """Return the first of some kinds that an Instance is, with the fact; nothing where it is none.

    Parameters
    ----------
    header : Dataset
    kinds : iterable of str
        Rows of :data:`KINDS`, in the order in which they are asked.

    Returns
    -------
    str
        Such as ``a screenshot (ImageType has SCREEN SAVE)``.
    """
    for kind in kinds:
        fact = KINDS[kind].fact(header)
        if fact:
            return f"{KINDS[kind].words} ({fact})"
    return ""


def _is(header: Dataset, keyword: str, value: str) -> bool:
    return [one.upper() for one in values(header, keyword)[:1]] == [value]


def _of_class(header: Dataset, classes: frozenset[uid.UID]) -> str:
    found = values(header, "SOPClassUID")[:1]
    return f"SOPClassUID is {uid.UID(found[0]).name}" if found and found[0] in classes else ""
