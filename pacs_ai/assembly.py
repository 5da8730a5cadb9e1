"""Whether a Study is complete, whether it is current, and whether what came again is the same.

Pure: evidence in, decision out, and the decision says by which evidence it was made.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from enum import Enum
from zoneinfo import ZoneInfo

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_SQ

from pacs_ai.study import texts, values
from pacs_ai.times import date_of, time_of
from pacs_ai.uids import digest

FUTURE_TOLERANCE = timedelta(hours=24)
"""How far ahead a Study may be dated: clocks and time zones are wrong by hours, not days."""

SET_BACK = timedelta(minutes=5)
"""An Instance that is dated so far ahead came before the clock was set back."""

LARGEST_COMPARED = 2 * 2**30
"""Bytes of decoded pixel data of one Instance that are compared; a larger one is a conflict."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The Study is complete; the evidence is written down with its version."""

    evidence: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """More may come; look again at this time (aware)."""

    until: datetime


def complete(
    last_received: datetime, now: datetime, quiet: timedelta, *, asked_at: datetime
) -> Complete | Waiting:
    """Decide whether a Study is complete: nothing more came for the quiet period.

    Parameters
    ----------
    last_received : datetime
        When the newest of its source Instances was stored (aware).
    now : datetime
        Aware, by the same clock.
    quiet : timedelta
        Of the Study's modality or peer.
    asked_at : datetime
        When this look was asked for (aware). What comes meanwhile puts it off, so that where the clock was
        set back since the newest Instance came, it says how long nothing did.
    """
    if last_received > now + SET_BACK:
        if now < asked_at + quiet:
            return Waiting(now + quiet)
        return Complete("its newest Instance is dated ahead: the clock was set back since")
    until = last_received + quiet
    if now < until:
        return Waiting(until)
    seconds = f"{quiet.total_seconds():g}"
    since = last_received.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Complete(f"no Instance arrived for {seconds} s after {since} UTC")


def content_key(instances: Iterable[tuple[str, str]]) -> str:
    """Return what identifies a Study version's content: its source Instances, in any order.

    Parameters
    ----------
    instances : iterable of (str, str)
        SOP Instance UID and digest of each source Instance; results do not count.
    """
    return digest([[uid, content] for uid, content in sorted(set(instances))])


# ---------------------------------------------------------------------- current


@dataclass(frozen=True, slots=True)
class Current:
    """The Study was made lately enough to start Jobs."""


@dataclass(frozen=True, slots=True)
class NotCurrent:
    """The Study is stored and starts nothing; the reason is one that a person can act on."""

    reason: str


_OFFSET = re.compile(r"([+-])([0-9]{2})([0-5][0-9])")
_WESTERNMOST, _EASTERNMOST = timedelta(hours=-12), timedelta(hours=14)
"""The limits of TimezoneOffsetFromUTC (PS3.3 C.12.1.1.8)."""


def currency(
    header: Dataset, received_at: datetime, *, max_age: timedelta | None, time_zone: str
) -> Current | NotCurrent:
    """Decide whether a Study is current, or an old one sent again (a prefetch, a migration).

    Its time is StudyDate and StudyTime; only where StudyDate is missing, SeriesDate and SeriesTime.
    A date without a time counts as that whole day, and a time without minutes as that whole hour, in
    favour of the Study.

    Parameters
    ----------
    header : Dataset
        Of any Instance of the Study.
    received_at : datetime
        When its last Instance came (aware).
    max_age : timedelta or None
        None: every Study is current.
    time_zone : str
        IANA name of the site's zone, for headers without TimezoneOffsetFromUTC (PS3.3 C.12.1.1.8).
    """
    if max_age is None:
        return Current()
    keyword, spell = _dated(header, time_zone)
    if spell is None:
        remedy = "send it with StudyDate, or set defaults.max_age: off"
        if keyword:
            return NotCurrent(f"undated: {keyword} is not a date: {remedy}")
        return NotCurrent(f"undated: StudyDate and SeriesDate are missing: {remedy}")
    first, last = spell
    if first - received_at > FUTURE_TOLERANCE:
        return NotCurrent(
            f"{keyword} lies more than 24 h in the future: correct the modality's clock"
        )
    if received_at - last > max_age:
        hours = f"{max_age.total_seconds() / 3600:g} h"
        return NotCurrent(f"{keyword} lies more than {hours} (defaults.max_age) before its arrival")
    return Current()


def _dated(header: Dataset, time_zone: str) -> tuple[str, tuple[datetime, datetime] | None]:
    """Return which element dates the Study, and the first and last moment that it can mean."""
    for level in ("Study", "Series"):
        days, times = values(header, f"{level}Date"), values(header, f"{level}Time")
        if days:
            return f"{level}Date", _spell(days[0], times[:1], _zone(header, time_zone))
    return "", None


def _zone(header: Dataset, time_zone: str) -> timezone | ZoneInfo:
    stated = values(header, "TimezoneOffsetFromUTC")
    found = _OFFSET.fullmatch(stated[0]) if stated else None
    if found is None:
        return ZoneInfo(time_zone)
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    offset = -offset if found[1] == "-" else offset
    return timezone(offset) if _WESTERNMOST <= offset <= _EASTERNMOST else ZoneInfo(time_zone)


def _spell(
    day: str, times: tuple[str, ...], zone: timezone | ZoneInfo
) -> tuple[datetime, datetime] | None:
    found = date_of(day)
    if found is None:
        return None
    clock = (time_of(times[0]) if times else None) or (time.min, time.max)
    first, last = (datetime.combine(found, one, tzinfo=zone) for one in clock)
    return first, last


# ---------------------------------------------------------------------- the same UID again


class Difference(Enum):
    """How an Instance differs from one of the same SOP Instance UID that is kept already."""

    SAME = "same"
    """Only in its encoding: a duplicate."""
    ATTRIBUTES = "attributes"
    """In what its header says: a new Study version."""
    CONFLICT = "conflict"
    """In pixels, patient or geometry: a person must look."""


_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_GEOMETRY = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsStored", "PixelRepresentation"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PatientOrientation", "PatientPosition"),
    *("SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "FrameOfReferenceUID"),
    *("Laterality", "ImageLaterality", "FieldOfViewHorizontalFlip", "FieldOfViewRotation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PresentationLUTShape"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
# What is first said of the pixels' unit adds to what they mean; said otherwise, they mean something else.
_UNITS = ("RescaleType", "Units")
_GEOMETRY_TAGS = frozenset(Tag(keyword) for keyword in _GEOMETRY)
_PIXELS = frozenset(
    Tag(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
)
_PALETTE = frozenset(
    Tag(f"{name}PaletteColorLookupTable{part}")
    for part, names in (
        ("Descriptor", ("Red", "Green", "Blue")),
        ("Data", ("Red", "Green", "Blue", "Alpha")),
        ("Data", ("SegmentedRed", "SegmentedGreen", "SegmentedBlue", "SegmentedAlpha")),
    )
    for name in names
)
_SAMPLES = frozenset(
    Tag(keyword)
    for keyword in ("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "HighBit")
)
"""How the bytes of pixels are to be read."""
# How pixels and text are laid out, which decoding sees through, and a preview of them.
# PhotometricInterpretation has its own comparison: a decoder turns YBR into RGB but never MONOCHROME1 into
# MONOCHROME2.
_LAYOUT = _SAMPLES | {
    Tag(keyword)
    for keyword in (
        *("SpecificCharacterSet", "DataSetTrailingPadding", "LengthToEnd", "IconImageSequence"),
        *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    )
}
# Where whoever encodes pixels anew without loss says that it was there.
_RECODING = frozenset(
    Tag(keyword)
    for keyword in (
        "DerivationDescription",
        "InstanceCoercionDateTime",
        "ContributingEquipmentSequence",
    )
)
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN"}) | {
    *("SH", "ST", "TM", "UC", "UI", "UR", "UT")
}
_ASSUMED: dict[int, object] = {Tag("NumberOfFrames"): (1.0,)}
"""What a missing element says."""
_UNSTATED = frozenset({None, "UN"})
"""VRs that say nothing of what a value is."""
_NUMBERS = {
    **dict.fromkeys(("US", "SS", "AT", "OW"), "H"),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), "I"),
    **dict.fromkeys(("UV", "SV", "FD", "OV", "OD"), "Q"),
}
"""Type code of the integers that a byte order swaps, by VR (PS3.5 §7.3)."""
_ITEM = b"\xfe\xff\x00\xe0"
_IMPLICIT_HEAD = 8
"""Bytes before a value in Implicit VR."""

_Element = DataElement | RawDataElement


def compare(kept: Dataset, arrived: Dataset, *, same_frames: Callable[[], bool]) -> Difference:
    """Compare two Instances of one SOP Instance UID by content.

    Transfer syntax, File Meta Information, character set, group lengths and padding do not count;
    an empty element is as good as a missing one, and no NumberOfFrames as good as 1. Nor do icons
    count, nor, where the same pixels come in another transfer syntax, what a lossless recoder notes
    of itself.
    PatientID, its issuer, birth date and sex are the patient; a name alone that differs under the same
    PatientID is a correction, and so is identity that was missing and comes now.
    Pixel data of different encodings or palettes is compared decoded; where one cannot be decoded, or
    is larger than :data:`LARGEST_COMPARED`, that is a conflict: nobody knows.

    Parameters
    ----------
    kept, arrived : Dataset
        Whole, as ``dcmread`` gives them.
    same_frames : callable
        Tells whether both decode to the same frames; False where one cannot be decoded. Asked only
        where nothing else decides.
    """
    differing = _differing(kept, arrived) - _recoding(kept, arrived)
    if _coloured(kept):
        differing -= _PALETTE  # decoded, as colours: another spelling of a palette is none
    if differing & _telling(kept) or not _same_pixels(kept, arrived, same_frames):
        return Difference.CONFLICT
    return Difference.ATTRIBUTES if differing else Difference.SAME


def contradicting(kept: Dataset, arrived: Dataset) -> list[str]:
    """Return in which elements two Instances contradict each other, by keyword; no values.

    Where none of patient and geometry differs it is the pixels.
    """
    differing = sorted(_differing(kept, arrived) & _telling(kept))
    return [keyword_for_tag(tag) for tag in differing] or ["PixelData"]


def _telling(kept: Dataset) -> set[BaseTag]:
    """Return the elements that must not differ from what is kept: of its geometry and its patient."""
    # What was missing and comes now is the correction that a hold for identity asks for; but an
    # issuer that joins a PatientID may make it another patient's.
    known = values(kept, "PatientID")
    who = _IDENTITY if known else (*_IDENTITY, "PatientName")
    said = {keyword for keyword in (*who, *_UNITS) if values(kept, keyword)}
    if known:
        said.add("IssuerOfPatientID")
    return {*_GEOMETRY_TAGS, *_PALETTE, *(Tag(keyword) for keyword in said)}


def _differing(one: Dataset, other: Dataset) -> set[BaseTag]:
    # In items as well: pixels inside a sequence are a preview, which a recoder encodes again.
    return {
        tag
        for tag in {*one.keys(), *other.keys()}
        if tag.element != 0 and tag not in _PIXELS | _LAYOUT and not _same(one, other, tag)
    }


def _same(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    """Tell whether an element says the same in both, however each is encoded.

    A private element counts wherever it stands, in functional groups too: some makers keep there how the
    stored values are scaled. Implicit VR drops its VR; it is then read by the one that the other states.
    """
    elements: tuple[_Element | None, _Element | None] = one.get_item(tag), other.get_item(tag)
    stated = [_vr(element) for element in elements]
    same_set = one.original_character_set == other.original_character_set
    # Where one side cannot know what the bytes mean, they are all there is.
    if (same_set or not all(stated)) and _same_bytes(*elements):
        return True
    known = next(filter(None, stated), "SQ" if all(map(_itemised, elements)) else "")
    vrs = [vr or known for vr in stated]
    sides = list(zip((one, other), elements, vrs, strict=True))
    if "SQ" in vrs:
        return _same_items(*(_items(*side) for side in sides))
    first, second = (_content(*side) or _ASSUMED.get(tag, ()) for side in sides)
    return first == second


def _recoding(one: Dataset, other: Dataset) -> set[BaseTag]:
    """Return the elements that say no more than that the same pixels are encoded otherwise."""
    if _same_syntax(one, other) or not any(tag in each for tag in _PIXELS for each in (one, other)):
        return set()
    # To say that nothing was lost is no more than to say nothing; that something was, is.
    lossless = {values(each, "LossyImageCompression") for each in (one, other)} <= {(), ("00",)}
    return {*_RECODING, Tag("LossyImageCompression")} if lossless else {*_RECODING}


def _vr(element: _Element | None) -> str:
    """Return an element's VR as it states it, or as the dictionary does; empty where neither does."""
    if element is None:
        return ""
    if element.VR not in _UNSTATED:
        return str(element.VR)
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return "LO" if element.tag.is_private_creator else ""


def _same_bytes(one: _Element | None, other: _Element | None) -> bool:
    return (
        isinstance(one, RawDataElement)
        and isinstance(other, RawDataElement)
        and _little(one) == _little(other)
        and (one.value or b"") == (other.value or b"")
    )


def _little(raw: RawDataElement) -> bool:
    # Whoever does not know an element's VR cannot have swapped its bytes.
    return raw.is_little_endian or raw.VR in _UNSTATED


def _itemised(element: _Element | None) -> bool:
    return isinstance(element, RawDataElement) and (element.value or b"").startswith(_ITEM)


def _items(dataset: Dataset, element: _Element | None, vr: str) -> list[Dataset] | None:
    """Return a sequence's items; None where it is none, or its bytes cannot be read as one."""
    if element is None or not element.value:
        return []
    if vr != "SQ":
        return None
    if not isinstance(element, RawDataElement):
        return list(element.value)
    # Where its VR is not stated, it is in Implicit VR Little Endian (PS3.5 §6.2.2).
    implicit = element.is_implicit_VR or element.VR in _UNSTATED
    charset = dataset.original_character_set
    encodings = [charset] if isinstance(charset, str) else list(charset)
    try:
        items = convert_SQ(element.value, implicit, _little(element), encodings)
        # Any bytes may begin like an item, and of those that end too early pydicom says nothing.
        if not _vr(element) and _encoded(DataElement(element.tag, "SQ", items)) != element.value:
            return None
    except Exception:  # pydicom raises many types on hostile bytes
        return None
    return list(items)


def _same_items(one: list[Dataset] | None, other: list[Dataset] | None) -> bool:
    if one is None or other is None or len(one) != len(other):
        return False
    return not any(_differing(*pair) for pair in zip(one, other, strict=True))


def _content(dataset: Dataset, element: _Element | None, vr: str) -> object:
    """Return an element's value such that two encodings of it are equal; () where it is empty."""
    if element is None:
        return ()
    if vr in _TEXT:
        # Not through the Dataset: it would warn of values that real headers hold.
        said = [_plain(one, vr) for one in texts(dataset, element, vr)]
        while said and said[-1] == "":
            said.pop()  # but not between others: which of two values is missing tells
        return tuple(said)
    if not isinstance(element, RawDataElement):
        return _encoded(element) or ()
    numbers, value = _NUMBERS.get(vr), element.value or b""
    if numbers is None or _little(element) or len(value) % array(numbers).itemsize:
        return value or ()
    swapped = array(numbers, value)
    swapped.byteswap()
    return swapped.tobytes() or ()


def _encoded(element: DataElement) -> bytes:
    """Return the value of an element that was looked at already, as it is in Implicit VR Little Endian."""
    stream = DicomBytesIO()
    stream.is_little_endian = stream.is_implicit_VR = True
    write_data_element(stream, element)
    return stream.getvalue()[_IMPLICIT_HEAD:]


def _plain(value: str, vr: str) -> object:
    if vr in ("DS", "IS"):
        try:
            return float(value)
        except ValueError:
            return value
    if vr == "PN":
        # What is left empty at the end may be left out (PS3.5 §6.2.1).
        return "=".join(group.rstrip("^ ") for group in value.split("=")).rstrip("=")
    return value


def _same_pixels(one: Dataset, other: Dataset, same_frames: Callable[[], bool]) -> bool:
    tags = [tag for tag in _PIXELS if tag in one or tag in other]
    if not tags:
        return True
    both = all(tag in one and tag in other for tag in tags)
    if not both or not _same_photometry(one, other):
        return False
    alike = _same_syntax(one, other) and all(_same(one, other, tag) for tag in _SAMPLES | _PALETTE)
    if alike and all(one[tag].value == other[tag].value for tag in tags):
        return True
    small = max(_decoded_size(one), _decoded_size(other)) <= LARGEST_COMPARED
    return small and same_frames()


def _same_syntax(one: Dataset, other: Dataset) -> bool:
    return bool(one.file_meta.TransferSyntaxUID == other.file_meta.TransferSyntaxUID)


def _same_photometry(one: Dataset, other: Dataset) -> bool:
    seen = {"".join(values(each, "PhotometricInterpretation")[:1]) for each in (one, other)}
    colours = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
    return len(seen) == 1 or seen <= colours


def _coloured(dataset: Dataset) -> bool:
    return values(dataset, "PhotometricInterpretation") == ("PALETTE COLOR",)


def _decoded_size(dataset: Dataset) -> int:
    size = 1
    for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"):
        given = values(dataset, keyword)
        size *= int(given[0]) if given and given[0].isdecimal() else 1
    return size // 8
