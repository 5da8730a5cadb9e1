"""The source: Instances, Series and Studies as they were received, and how to read their headers.

Nothing here decodes pixel data.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import pydicom
from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from pacs_ai.errors import ReceiveError
from pacs_ai.uids import LONGEST_UID, UID_PATTERN

_ENCODED_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_PLAIN_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_NO_TEXT = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})

HEAD_LIMIT = 1024 * 1024
"""Bytes of a data set that the listener may look at; identity stands well before them."""

_LAST_HEAD_TAG = 0x0020000E
_HEAD = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00080060: "Modality",
    0x00080070: "Manufacturer",
}
"""The elements of :class:`Head`, in its order: the UIDs, then the texts."""
_HEAD_UIDS = 4
_BLANK = " \0\t\r\n"
_PADDING = _BLANK.encode()
_EXPLICIT_VR, _IMPLICIT_VR, _LENGTH = Struct("<HH2sH"), Struct("<HHL"), Struct("<L")
_SHORT_HEAD, _LONG_HEAD = 8, 12
_IS_EXPLICIT = {
    str(one): not one.is_implicit_VR
    for one in AllTransferSyntaxes
    if one.is_little_endian and not one.is_deflated
}
_VR = frozenset(one.encode() for one in STANDARD_VR)
_LONG_VR = frozenset(one.encode() for one in EXPLICIT_VR_LENGTH_32)
_PLAIN = re.compile(rb"(?:%b\n){4}[ -\[\]-\x7f]*\n[ -\[\]-\x7f]*" % UID_PATTERN)
"""The values of :data:`_HEAD` with nothing that only the library may judge: several values, escapes."""
_FINGERPRINT = 32
"""Bytes by which a layout is looked up: the character set and what of the Image Type is in them."""
_USUAL, _REMEMBERED = 256, 256
"""Most elements of a layout that is kept, and most layouts."""

MANUFACTURER = "PACS AI"
"""Manufacturer (0008,0070) of everything the gateway makes."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_DERIVED_CLASSES = tuple(
    _STORAGE + family
    for family in (
        "9.",  # waveforms
        "11.",  # presentation states
        "30",  # parametric map
        "66",  # raw data, registration, segmentation, surfaces
        "67",  # real world value mapping
        "68",  # surface scans
        "78.",  # lens and other ophthalmic measurements
        "79.",
        "80.",
        "88.",  # structured reports and key object selection
        "90.",
        "91.",  # annotations
        "104.",  # encapsulated documents
        "200.",
        "201.",
        "481.2",  # radiotherapy dose, structures, records, plans
        "481.3",
        "481.4",
        "481.5",
        "481.6",
        "481.7",
        "481.8",
        "481.9",
    )
)
_DERIVED_MODALITIES = frozenset(
    {
        "SEG",
        "SR",
        "KO",
        "PR",
        "DOC",
        "REG",
        "RWV",
        "FID",
        "RTSTRUCT",
        "RTPLAN",
        "RTDOSE",
        "RTRECORD",
    }
    | {"ANN", "SMR", "PLAN", "AU", "ECG", "HD"}
)

REJECTION_NOTES = str(KeyObjectSelectionDocumentStorage)
"""SOP Class UID of rejection notes, and of other key object selections."""

_REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})

UNREADABLE = 0xC000
"""C-STORE status *cannot understand* (PS3.4 B.2.3)."""


class Head(NamedTuple):
    """What the listener needs to know of an Instance before it may answer success."""

    SOPClassUID: str
    SOPInstanceUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    Modality: str
    Manufacturer: str

    @property
    def role(self) -> str:
        """See :func:`role_of`."""
        return _role(self.SOPClassUID, self.Modality, self.Manufacturer)


def role_of(header: Dataset) -> str:
    """Return ``source`` for images that modalities make, ``derived`` for all that is made from them.

    A PACS sends whole Studies, results and reports included; only sources may start a Job. What
    another PACS AI gateway made is derived too, a capture for instance, which looks like a source.
    """
    keywords = ("SOPClassUID", "Modality", "Manufacturer")
    return _role(*("".join(values(header, keyword)[:1]) for keyword in keywords))


def _role(sop_class_uid: str, modality: str, manufacturer: str) -> str:
    derived = (
        sop_class_uid.startswith(_DERIVED_CLASSES)
        or modality in _DERIVED_MODALITIES
        or manufacturer.strip() == MANUFACTURER
    )
    return "derived" if derived else "source"


def rejected_by(header: Dataset) -> frozenset[str]:
    """Return the SOP Instance UIDs that a rejection note names; none where it is no such note.

    A rejection note is a Key Object Selection whose title says that what it refers to is not to be
    used: rejected for quality or patient safety, the wrong worklist entry, or past its retention
    (PS3.16 CID 7011, IHE Imaging Object Change Management).
    """
    titles = {
        code
        for item in items(header, "ConceptNameCodeSequence")
        if values(item, "CodingSchemeDesignator") == ("DCM",)
        for code in values(item, "CodeValue")
    }
    if values(header, "SOPClassUID") != (REJECTION_NOTES,) or not titles & _REJECTIONS:
        return frozenset()
    return frozenset(
        uid
        for study in items(header, "CurrentRequestedProcedureEvidenceSequence")
        for series in items(study, "ReferencedSeriesSequence")
        for item in items(series, "ReferencedSOPSequence")
        for uid in values(item, "ReferencedSOPInstanceUID")
    )


def read_head(data: bytes, transfer_syntax_uid: str) -> Head:
    """Read the head of an encoded data set: bounded, no pixels, nothing past (0020,000E).

    Parameters
    ----------
    data : bytes
        The first bytes of the data set after the File Meta Information, at most :data:`HEAD_LIMIT`.
    transfer_syntax_uid : str
        How they are encoded.

    Raises
    ------
    ReceiveError
        With status 0xC000 when the bytes cannot be read or a UID is missing.
    """
    data = data[:HEAD_LIMIT]
    plain = plain_head(data, transfer_syntax_uid)
    if plain is not None:
        return plain
    syntax = UID(transfer_syntax_uid)
    try:
        if syntax == DeflatedExplicitVRLittleEndian:
            data = _inflate_bounded(data)
        header = pydicom.filereader.read_dataset(
            BytesIO(data),
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=syntax.is_little_endian,
            stop_when=_past_head,
        )
        found = {keyword: "\\".join(values(header, keyword)) for keyword in _HEAD.values()}
    except Exception as error:  # pydicom raises many types on hostile bytes
        raise ReceiveError("the head of the data set cannot be read", status=UNREADABLE) from error
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not UID(found[keyword], pydicom.config.IGNORE).is_valid:  # or pydicom warns and shows it
            raise ReceiveError(f"{keyword} is missing or not a UID", status=UNREADABLE)
    return Head(**found)


def plain_head(data: bytes, transfer_syntax_uid: str) -> Head | None:
    """Read a head that holds nothing unusual; None when more bytes or the library must be looked at.

    The library makes an object of each of the many elements that stand before the six that are wanted,
    and the sender waits for its answer meanwhile. What is cut off, of undefined length, not in ASCII, or
    says other than a UID, is not judged here.
    """
    places = _places(data, transfer_syntax_uid)
    if places is None:
        return None
    every = [data[place].strip(_PADDING) for place in places]
    text = b"\n".join(every)
    if not _PLAIN.fullmatch(text) or max(map(len, every[:_HEAD_UIDS])) > LONGEST_UID:
        return None
    return Head._make(text.decode("ascii").split("\n"))


class _Layout(NamedTuple):
    """Where the elements of a head stand.

    Attributes
    ----------
    heads : Struct
        Takes tag, VR and length of each element, passes by its value, and takes the tag after the head.
    seen : tuple of bytes
        What it took where this layout was found; where it takes the same, the layout is the same.
    places : list of slice
        The values of :data:`_HEAD`, in its order; empty where there is none.
    """

    heads: Struct
    seen: tuple[bytes, ...]
    places: list[slice]


_layouts: dict[tuple[str, bytes], _Layout] = {}


def _places(data: bytes, transfer_syntax_uid: str) -> list[slice] | None:
    """Return where the values of :data:`_HEAD` stand; None when an element is unusual or cut off.

    Instances of a Series have the same elements of the same lengths, but for a digit now and then: they are
    gone through once, and of the next to come it is only asked whether they are the same.
    """
    key = transfer_syntax_uid, data[:_FINGERPRINT]
    known = _layouts.get(key)
    if (
        known is not None
        and len(data) >= known.heads.size + _LONG_HEAD
        and known.heads.unpack_from(data) == known.seen
    ):
        return known.places
    explicit = _IS_EXPLICIT.get(transfer_syntax_uid)
    elements = None if explicit is None else _elements(data, explicit=explicit)
    if elements is None:
        return None
    values = {tag: slice(place, place + length) for tag, _, place, length in elements}
    places = [values.get(tag, slice(0)) for tag in _HEAD]
    if len(elements) <= _USUAL:
        heads = Struct("".join(f"{head}s{length}x" for _, head, _, length in elements) + "4s")
        if len(_layouts) >= _REMEMBERED:
            _layouts.clear()
        _layouts[key] = _Layout(heads, heads.unpack_from(data), places)
    return places


def _elements(data: bytes, *, explicit: bool) -> list[tuple[int, int, int, int]] | None:
    """Return tag, bytes before the value, its place and length of each element of the head.

    Little endian (PS3.5 section 7.1).
    """
    found: list[tuple[int, int, int, int]] = []
    place, end = 0, len(data) - _LONG_HEAD
    while place <= end:
        if explicit:
            group, element, vr, length = _EXPLICIT_VR.unpack_from(data, place)
        else:
            group, element, length = _IMPLICIT_VR.unpack_from(data, place)
        tag = group << 16 | element
        if tag > _LAST_HEAD_TAG:
            return found
        head = _SHORT_HEAD
        if explicit:
            if vr in _LONG_VR:
                head = _LONG_HEAD
                (length,) = _LENGTH.unpack_from(data, place + _SHORT_HEAD)
            elif vr not in _VR:
                return None
        found.append((tag, head, place + head, length))
        place += head + length  # beyond the end, where it is cut off or of undefined length
    return None


def _past_head(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _LAST_HEAD_TAG)


def _inflate_bounded(data: bytes) -> bytes:
    # A deflated data set could grow a thousandfold; only the head is wanted.
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, HEAD_LIMIT)


@dataclass(frozen=True, slots=True)
class Instance:
    """One stored source SOP Instance: its header, and where its bytes rest.

    Attributes
    ----------
    header : Dataset
        Every element of the Instance but the pixel data. Never changed.
    path : Path
        A DICOM file (PS3.10) whose data set is byte for byte what was received.
    digest : str
        SHA-256 of the data set's bytes, hexadecimal.
    transfer_syntax_uid : str
        The encoding it was received in.
    """

    header: Dataset = field(repr=False)
    path: Path = field(repr=False)
    digest: str
    transfer_syntax_uid: str

    @property
    def SOPInstanceUID(self) -> str:  # noqa: N802 - the element's own keyword
        return str(self.header.SOPInstanceUID)

    @property
    def SOPClassUID(self) -> str:  # noqa: N802
        return str(self.header.SOPClassUID)

    @property
    def SeriesInstanceUID(self) -> str:  # noqa: N802
        return str(self.header.SeriesInstanceUID)

    @property
    def Modality(self) -> str:  # noqa: N802
        return "".join(values(self.header, "Modality")[:1])


@dataclass(frozen=True, slots=True)
class Series:
    """The Instances of one Series Instance UID, in the order they were received."""

    SeriesInstanceUID: str
    instances: tuple[Instance, ...]

    @property
    def header(self) -> Dataset:
        """The first Instance's header, for what is the same in a whole Series."""
        return self.instances[0].header


@dataclass(frozen=True, slots=True)
class Study:
    """A Study version: the frozen set of source Instances that the steps work on.

    Attributes
    ----------
    StudyInstanceUID : str
    instances : tuple of Instance
        Source Instances only; what the gateway or other software derived is not among them.
    received_at : datetime
        When the last of them arrived, UTC.
    peer : str
        Name of the peer (settings) that sent it, or ``"file"``.
    rejected : frozenset of str
        SOP Instance UIDs that a rejection note of the Study names (:func:`rejected_by`).
    """

    StudyInstanceUID: str
    instances: tuple[Instance, ...]
    received_at: datetime
    peer: str
    rejected: frozenset[str] = frozenset()

    @property
    def series(self) -> tuple[Series, ...]:
        """Series in the order their first Instance arrived."""
        grouped: dict[str, list[Instance]] = {}
        for instance in self.instances:
            grouped.setdefault(instance.SeriesInstanceUID, []).append(instance)
        return tuple(Series(uid, tuple(members)) for uid, members in grouped.items())

    @property
    def header(self) -> Dataset:
        """The first Instance's header, for what is the same in a whole Study."""
        return self.instances[0].header

    def instance(self, sop_instance_uid: str) -> Instance:
        """Return the Instance of that UID; KeyError when it is not part of this Study version."""
        for instance in self.instances:
            if instance.SOPInstanceUID == sop_instance_uid:
                return instance
        raise KeyError(sop_instance_uid)


NEVER = "never "
"""How the names of ``never`` rules begin; a number follows."""
VIEW_FROM_PIXELS = "view from pixels"
"""Stands as the rule of the Jobs that only ask what an image shows, whatever rules want to know it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to run on chosen Instances of a Study version, because one rule said so.

    Attributes
    ----------
    rule : str
        Name of the rule.
    endpoint : str
        Name of the endpoint (settings) that answers it.
    kind : str
        Row of ``pacs_ai.models.MODELS``: ``insight``, ``parse2d``, ``parse3d``, ``cxrreport``.
    inputs : mapping of str to tuple of Instance
        Chosen Instances by role: ``frontal``, ``lateral``, ``image`` (one Instance each) or ``volume``
        (Instances of one Series; order is *not* promised, geometry decides).
    parameters : mapping
        JSON values that reach the model or its reading: ``prompts`` (labels or words of the prompt
        catalogue), ``asked`` (digest of how they are asked and checked), ``frame`` (number, from 1, of
        the frame of a multi-frame ``image``, or ``"all"``), ``frames`` (numbers of the volume's frames,
        from 1, where it is a part of a multi-frame Instance), ``measure`` (e.g. ``{"ctr": true}``),
        ``view`` (``"PA"``, ``"AP"`` ... of the frontal image and ``view_from``, the source of that
        knowledge), ``notes`` (list of str shown with the results).
    """

    rule: str
    endpoint: str
    kind: str
    inputs: Mapping[str, tuple[Instance, ...]]
    parameters: Mapping[str, Any]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All chosen Instances, by role in order of name."""
        return tuple(one for role in sorted(self.inputs) for one in self.inputs[role])


def read_instance(path: Path, *, digest: str) -> Instance:
    """Read the header of a stored Instance, without its pixel data.

    Raises
    ------
    pydicom.errors.InvalidDicomError
        When the file is not DICOM (PS3.10).
    """
    header = pydicom.dcmread(path, stop_before_pixels=True)
    syntax = str(header.file_meta.TransferSyntaxUID)
    return Instance(header=header, path=path, digest=digest, transfer_syntax_uid=syntax)


def unreadable(header: Dataset, keywords: Iterable[str]) -> str:
    """Return the first of these elements whose bytes are no value of its VR, or an empty string.

    A value that its VR forbids is one all the same (:func:`values`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of such values; a warning would show them
        for keyword in keywords:
            try:
                header.get(keyword)
            except Exception:  # pydicom raises many types on hostile bytes
                return keyword
    return ""


def values(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an element's values as text, as they stand, without judging them.

    Real headers carry values that their VR forbids (an age of ``62``, a hash for a birth date).
    They are read here without a warning, which would show them, and without changing the header.

    Parameters
    ----------
    header : Dataset
    keyword : str
        Of the data dictionary (PS3.6).

    Returns
    -------
    tuple of str
        Without surrounding spaces and without empty values; empty when the element is missing or
        empty, cannot be read at all, or is a sequence or bulk data.
    """
    tag = Tag(keyword)
    element = header.get_item(tag)
    if element is None:
        return ()
    if isinstance(element, RawDataElement):
        vr = str(element.VR or dictionary_VR(tag))
        if vr in _ENCODED_TEXT | _PLAIN_TEXT:
            return _parts(_decoded(header, element.value or b"", vr))
    try:
        element = header[tag]
    except Exception:  # pydicom raises many types on values that are not what their VR says
        return ()
    if element.VR in _NO_TEXT or element.value is None:
        return ()
    if isinstance(element.value, Sequence) and not isinstance(element.value, str | bytes):
        return tuple(text for one in element.value for text in _parts(str(one)))
    return _parts(str(element.value))


def texts(header: Dataset, element: DataElement | RawDataElement, vr: str) -> tuple[str, ...]:
    """Return an element's values as text, the empty ones too, read by a VR that it need not state itself."""
    if isinstance(element, RawDataElement):
        text = _decoded(header, element.value or b"", vr)
    else:
        given = element.value
        listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        text = "\\".join("" if one is None else str(one) for one in listed)
    return tuple(one.strip(_BLANK) for one in text.split("\\"))


def items(header: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; none when it is missing, empty, or no sequence at all."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom raises many types on values that are not what their VR says
        return ()
    return tuple(value) if isinstance(value, pydicom.Sequence) else ()


def is_slide(header: Dataset) -> bool:
    """Tell whether an Instance is a whole-slide image (PS3.3 A.32.8)."""
    return values(header, "SOPClassUID") == (str(VLWholeSlideMicroscopyImageStorage),)


def projection_plane(header: Dataset) -> str:
    """Return the plane that PatientOrientation puts a projection in (PS3.3 C.7.6.1.1.1).

    Returns
    -------
    str
        ``frontal``, ``lateral`` or ``other``; empty where the header does not say it.
    """
    letters = {value[:1] for value in values(header, "PatientOrientation")}
    if not letters:
        return ""
    axes = {axis for axis in ("LR", "AP", "FH") if letters & set(axis)}
    if len(letters) == 2 and axes == {"LR", "FH"}:
        return "frontal"
    if len(letters) == 2 and axes == {"AP", "FH"}:
        return "lateral"
    return "other"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for one in text.split("\\") if (part := one.strip(_BLANK)))


def _decoded(header: Dataset, raw: bytes, vr: str) -> str:
    encodings = header.original_character_set
    if isinstance(encodings, str):
        encodings = [encodings]
    if vr in _PLAIN_TEXT or b"\x1b" not in raw:
        encoding = default_encoding if vr in _PLAIN_TEXT else encodings[0]
        return raw.decode(encoding, errors="replace")
    # Code extensions (PS3.5 §6.1.2.5): pydicom knows them; what it cannot read it replaces.
    return pydicom.charset.decode_bytes(raw, encodings, {ord("\\")})
