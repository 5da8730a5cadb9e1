"""Whose object it is: patient and Study, copied from the source's header and from nowhere else.

A value that is not valid DICOM is left out (empty where the element is Type 2) and named in
:attr:`Identity.notes`, which every object carries in Contribution Description. A value is never
repaired and never guessed.
"""

from __future__ import annotations

import copy
import struct
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pydicom
from pydicom.config import RAISE
from pydicom.datadict import keyword_dict
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DS, validate_value

from pacs_ai.errors import EncodingError, PixelError
from pacs_ai.pixels.frames import Frame, frames_of
from pacs_ai.study import Instance, values

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Elements of every object, empty where the source has no valid value (PS3.3 C.7.1, C.7.2)."""

TYPE_3 = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
)
"""Elements that are copied where the source has a valid value."""


_BAD_VALUE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
)
"""What pydicom raises on the bytes of a value that is not one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient and Study as the source says them.

    Attributes
    ----------
    elements : Dataset
        Specific Character Set, Study Instance UID and the elements of :data:`TYPE_2` and
        :data:`TYPE_3`, values as in the source.
    encoded : tuple of RawDataElement
        The text elements among them, byte for byte as they came.
    notes : tuple of str
        One sentence for each source element that could not be copied; keywords only, no values.
    """

    elements: Dataset = field(repr=False)
    encoded: tuple[RawDataElement, ...] = field(repr=False)
    notes: tuple[str, ...]

    def copy_to(self, dataset: Dataset) -> None:
        """Write patient and Study into an object, over whatever stood there."""
        for element in self.elements:
            if element.keyword != "SpecificCharacterSet":
                dataset[element.tag] = copy.deepcopy(element)

    def copy_encoded_to(self, dataset: Dataset) -> None:
        """Write the text elements byte for byte into an object of the source's character set.

        Decoding a name and encoding it again loses letters in some character sets.
        """
        for element in self.encoded:
            dataset[element.tag] = element


def identity_of(instance: Instance) -> Identity:
    """Read patient and Study from a source Instance.

    Parameters
    ----------
    instance : Instance
        Its header is not changed; the bytes of names are read from its file.

    Raises
    ------
    EncodingError
        When the source has no Study Instance UID: a result would belong to no Study.
    """
    header = instance.header
    elements = Dataset()
    notes: list[str] = []
    charset = valid(header, "SpecificCharacterSet")
    if charset is not None and not charset.is_empty:
        elements.add(charset)
    study = valid(header, "StudyInstanceUID")
    if study is None or study.is_empty:
        raise EncodingError(
            "StudyInstanceUID is missing or not valid in the source: send the Study again from a"
            " system that sets it"
        )
    elements.add(study)
    for keyword in (*TYPE_2, *TYPE_3):
        element = valid(header, keyword)
        if element is None and keyword in header:
            notes.append(f"{keyword} of the source is not valid and was left out.")
        if element is not None and (keyword in TYPE_2 or not element.is_empty):
            elements.add(copy.deepcopy(element))
        elif keyword in TYPE_2:
            setattr(elements, keyword, None)
    return Identity(elements, _encoded(instance, elements), tuple(notes))


def _encoded(instance: Instance, elements: Dataset) -> tuple[RawDataElement, ...]:
    wanted = [
        element.tag
        for element in elements
        if element.VR not in ("SQ", "US") and not element.is_empty
    ]
    source = pydicom.dcmread(instance.path, stop_before_pixels=True, specific_tags=wanted)
    found: list[RawDataElement] = []
    for tag in wanted:
        element = source.get_item(tag)
        if isinstance(element, RawDataElement) and element.value:
            value = element.value
            if len(value) % 2:
                value += b"\0" if elements[tag].VR == "UI" else b" "
            found.append(element._replace(VR=elements[tag].VR, value=value, length=len(value)))
    return tuple(found)


def valid(header: Dataset, keyword: str) -> DataElement | None:
    """Return an element of a header, or None where it is missing or its value is not valid.

    Sequences are taken as they are when every element in them is valid (PS3.5 §6.2).
    """
    if keyword not in header:
        return None
    try:
        with warnings.catch_warnings():
            # pydicom warns of a bad value on first access; here a bad value is an answer.
            warnings.simplefilter("ignore")
            element = header[keyword_dict[keyword]]
            _validate(element)
    except _BAD_VALUE:
        return None
    return element


def _validate(element: DataElement) -> None:
    if element.VR == "SQ":
        for item in element.value:
            for child in item:
                _validate(child)
        return
    values = element.value if element.VM > 1 else [element.value]
    for value in values:
        if value not in (None, ""):
            # Numbers keep the text they came as, and that text is what was sent.
            text = getattr(value, "original_string", value) if element.VR in ("DS", "IS") else value
            validate_value(element.VR, str(text) if element.VR != "US" else value, RAISE)


def zone_of(header: Dataset, when: datetime) -> datetime:
    """Return a moment in the time zone that the source's own dates and times are in.

    Timezone Offset From UTC (0008,0201) speaks for every date and time of an object, the copied
    ones too (PS3.3 C.12.1.1.8), so an offset that the source states is kept. Where it states none,
    the site's zone of ``when`` is taken.
    """
    element = valid(header, "TimezoneOffsetFromUTC")
    text = "" if element is None or element.is_empty else str(element.value)
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return when
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return when.astimezone(timezone(-offset if text[0] == "-" else offset))


_IMAGE_ELEMENTS = (
    "StudyInstanceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientOrientation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "InstanceNumber",
    "ImageType",
)

_DECIMALS = ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient")
"""Those of VR DS. Some systems write more than its sixteen characters, which the number can do without."""


def light_source(instance: Instance) -> Dataset:
    """Return what highdicom needs of a source image: geometry and size, no pixels and no patient.

    The patient is written last (:meth:`Identity.copy_to`), because highdicom warns of a name that
    it finds odd, and its warning holds the name.

    A Frame of Reference without plane position or orientation (a radiograph's) is left out, because
    an object derived from it cannot say where its planes lie. So it is where one position stands for
    several frames: nothing says that they lie in one place.

    Raises
    ------
    EncodingError
        When an element that names the image or its size is missing or not valid.
    """
    source = _image_elements(instance.header)
    require(source, ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns"))
    placed = "ImagePositionPatient" in source and "ImageOrientationPatient" in source
    if not placed or values(instance.header, "NumberOfFrames") not in ((), ("1",)):
        source.pop("FrameOfReferenceUID", None)
    if "FrameOfReferenceUID" not in source:
        for keyword in ("PositionReferenceIndicator", "ImagePositionPatient"):
            source.pop(keyword, None)
        source.pop("ImageOrientationPatient", None)
    return source


def _image_elements(header: Dataset) -> Dataset:
    """Return the image elements of a header that are valid, or can be said as their VR wants it."""
    source = Dataset()
    for keyword in TYPE_2:
        setattr(source, keyword, None)
    source.Modality = "OT"
    for keyword in _IMAGE_ELEMENTS:
        element = valid(header, keyword)
        if element is not None and not element.is_empty:
            source.add(copy.deepcopy(element))
        elif keyword in _DECIMALS:
            numbers = _shortened(values(header, keyword))
            if numbers:
                setattr(source, keyword, numbers if len(numbers) > 1 else numbers[0])
    return source


def light_frames(instance: Instance, numbers: Sequence[int]) -> Dataset:
    """Return :func:`light_source` of a multi-frame Instance that has only some of its frames.

    Parameters
    ----------
    instance : Instance
    numbers : sequence of int
        Of its frames, from 1. The first frame of what is returned is the first of these.

    Raises
    ------
    EncodingError
        As :func:`light_source`, and where a frame does not say where it lies.
    """
    source = light_source(instance)
    try:
        frames = {frame.number: frame for frame in frames_of(instance, numbers)}
    except PixelError as error:
        raise EncodingError(str(error)) from error
    first = frames[numbers[0]]
    source.NumberOfFrames = len(numbers)
    source.SharedFunctionalGroupsSequence = [
        _group(
            PlaneOrientationSequence=_decimals(first, "ImageOrientationPatient"),
            PixelMeasuresSequence=measures_of(first),
        )
    ]
    source.PerFrameFunctionalGroupsSequence = [
        _group(PlanePositionSequence=_decimals(frames[number], "ImagePositionPatient"))
        for number in numbers
    ]
    reference = valid(instance.header, "FrameOfReferenceUID")
    if reference is not None and not reference.is_empty:
        source.add(copy.deepcopy(reference))
        source.PositionReferenceIndicator = None
    return source


def measures_of(frame: Frame) -> Dataset:
    """Return the spacing of a frame's pixels, and its thickness where it says one (PS3.3 C.7.6.16.2.1).

    Raises
    ------
    EncodingError
        When it has no valid PixelSpacing.
    """
    return _decimals(frame, "PixelSpacing", "SliceThickness")


def _group(**macros: Dataset) -> Dataset:
    group = Dataset()
    for keyword, item in macros.items():
        setattr(group, keyword, [item])
    return group


def _decimals(frame: Frame, *keywords: str) -> Dataset:
    """Return decimal elements of a frame, each in the sixteen bytes of its VR."""
    item = Dataset()
    for keyword in keywords:
        numbers = _shortened(frame.values(keyword))
        if numbers:
            setattr(item, keyword, numbers if len(numbers) > 1 else numbers[0])
        elif keyword != "SliceThickness":
            raise EncodingError(
                f"{keyword} is missing or not valid in {frame.named}: send it again from a system"
                " that sets it"
            )
    return item


def _shortened(texts: Sequence[str]) -> list[Any]:
    """Return numbers in the sixteen bytes of VR DS each; none where one of the texts is no finite number."""
    try:
        return [DS(float(one), auto_format=True) for one in texts]
    except (ValueError, OverflowError):
        return []


def require(header: Dataset, keywords: Iterable[str]) -> None:
    """Refuse a header that lacks an element.

    Raises
    ------
    EncodingError
        Naming the Instance and the first element that is missing, empty or not valid.
    """
    for keyword in keywords:
        element = valid(header, keyword)
        if element is None or element.is_empty:
            raise EncodingError(
                f"{keyword} is missing or not valid in Instance"
                f" {header.get('SOPInstanceUID', '?')}: send it again from a system that sets it"
            )
