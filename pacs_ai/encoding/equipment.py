"""What every object carries: who made it, when, with which model, and in which Series it stands.

:func:`finish` is the last hand on every object. It overwrites all that a library took from the
clock or from chance, so that the same work gives the same bytes in every process and on every day.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs_ai.encoding import ENCODERS, Encoding, Stamp
from pacs_ai.encoding.identity import Identity, identity_of, valid, zone_of
from pacs_ai.results import PIXEL_PATH, Done, JobResults, ModelIdentity, NothingFound
from pacs_ai.study import MANUFACTURER, Instance
from pacs_ai.terms import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, Code
from pacs_ai.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
    digest,
)

MODEL_NAME = "PACS AI gateway"
CONTENT_CREATOR = "PACS AI^"

NOT_VERIFIED = "AI, not verified"
REFERENCE_NOTE = "reference model, not for clinical use"

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
"""Purpose of an item of Contributing Equipment Sequence (PS3.16 CID 7005)."""

FIRST_SERIES_NUMBER = 9001
_LO = 64
_SERIES_SLOTS = 90
_TEXT_VRS = frozenset(("SH", "LO", "ST", "LT", "UC", "UT", "PN"))


_LOSSY_ELEMENTS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
"""Transfer syntaxes that are always lossy, and the method they mean (PS3.3 C.7.6.1.1.5.1)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which object of a piece of work this is.

    Attributes
    ----------
    kind : str
        Row of :data:`pacs_ai.encoding.ENCODERS`.
    number : int
        From 1, among the objects of that kind that the same work gives.
    """

    kind: str
    number: int = 1

    def instance_uid(self, stamp: Stamp) -> UID:
        """SOP Instance UID of the object here."""
        return derived_uid("instance", stamp.identity, self.kind, self.number)

    def series_uid(self, stamp: Stamp) -> UID:
        """Series Instance UID: one object a Series, because viewers show only the last one."""
        return derived_uid("series", stamp.identity, self.kind, self.number)

    def series_number(self, work: Encoding) -> int:
        """Series Number from 9001: by kind, ten apart for what different rules and models gave."""
        slot = 0
        if not ENCODERS[self.kind].once_a_study and work.entries:
            entry = work.entries[0]
            slot = int(digest([entry.rule, entry.kind])[:8], 16) % _SERIES_SLOTS
        return FIRST_SERIES_NUMBER + 10 * slot + list(ENCODERS).index(self.kind)


def models_of(entries: Iterable[JobResults]) -> tuple[ModelIdentity, ...]:
    """Return the models that gave results, each once, in order."""
    gave = (one for one in entries if isinstance(one.outcome, Done | NothingFound))
    return tuple(dict.fromkeys(entry.model for entry in gave))


def tracking_uid(stamp: Stamp, *parts: str | int) -> UID:
    """Tracking UID (0062,0021) of a thing that was found: the same in a SEG and in an SR."""
    return derived_uid("tracking", stamp.identity, *parts)


def gateway_uid(stamp: Stamp) -> UID:
    """Device UID of this gateway as an observer (PS3.16 TID 1004): stable for an installation."""
    return derived_uid("device", stamp.installation, "gateway")


def model_uid(stamp: Stamp, model: ModelIdentity) -> UID:
    """Device UID (0018,1002) of a model here: another version is another device."""
    return derived_uid("device", stamp.installation, model.manufacturer, model.name, model.version)


def plain(text: str, limit: int = _LO) -> str:
    """Return text that an LO element may hold: no backslash, no control character, cut to size."""
    clean = re.sub(r"[\x00-\x1f\x7f]+", " ", text).replace("\\", "/").strip()
    return clean if len(clean) <= limit else clean[: limit - 2].rstrip() + ".."


def algorithm_name(model: ModelIdentity) -> str:
    """Name of a model as an algorithm; a reference model's says what it is (LO, 64 characters)."""
    if not model.reference:
        return plain(model.name)
    note = f" ({REFERENCE_NOTE})"
    return plain(model.name, _LO - len(note)) + note


def series_description(work: Encoding, content: str) -> str:
    """Return ``<prefix> <model> <content>``, with REFERENCE and NOT PRODUCTION where they hold.

    The model's name gives way when 64 characters are not enough; the warnings never do.
    """
    models = models_of(work.entries)
    flags = ""
    if any(model.reference for model in models):
        flags += ", REFERENCE"
    if not work.stamp.production:
        flags += ", NOT PRODUCTION"
    prefix = plain(work.stamp.prefix, 12)
    room = _LO - len(f"{prefix}  {content}{flags}")
    name = plain(models[0].name, room) if len(models) == 1 and room > 3 else ""
    return " ".join(part for part in (prefix, name, f"{content}{flags}") if part)


def finish(dataset: Dataset, work: Encoding, place: Place, content: str) -> Dataset:
    """Give an object everything that all the gateway's objects carry, and fix what chance set.

    Parameters
    ----------
    dataset : Dataset
        The object with its SOP Class UID, Modality and content; changed in place.
    work : Encoding
    place : Place
    content : str
        Last word of the Series Description, such as ``"segmentation"``.

    Returns
    -------
    Dataset
        The same object, ready to be written with ``enforce_file_format=True``.
    """
    identity = identity_of(work.study.instances[0])
    identity.copy_to(dataset)
    dataset.SOPInstanceUID = place.instance_uid(work.stamp)
    dataset.SeriesInstanceUID = place.series_uid(work.stamp)
    dataset.SeriesNumber = place.series_number(work)
    dataset.SeriesDescription = series_description(work, content)
    dataset.InstanceNumber = 1
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = plain(work.stamp.installation)
    dataset.SoftwareVersions = plain(work.stamp.software_version)
    _set_times(dataset, work)
    _set_dimension_organization(dataset, work.stamp, place)
    dataset.ContributingEquipmentSequence = [
        _contribution(work, model, identity.notes) for model in models_of(work.entries)
    ]
    _identify_private_scheme(dataset)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB"  # eight bits or fewer (PS3.5 A.2)
    dataset.preamble = b"\0" * 128
    dataset.file_meta = _file_meta(dataset)
    _choose_character_set(dataset, identity)
    return dataset


def mark_lossy(dataset: Dataset, instances: Sequence[Instance]) -> None:
    """Say whether an object comes from lossy pixels, also where the source's header forgot to.

    PS3.3 C.7.6.1.1.5. Method and ratio are the source's own; where it has none, the method is the
    transfer syntax's and the ratio that of the received file.
    """
    for keyword in _LOSSY_ELEMENTS:
        dataset.pop(keyword, None)
    dataset.LossyImageCompression = "00"
    for instance in instances:
        header = instance.header
        method = _LOSSY.get(instance.transfer_syntax_uid)
        if header.get("LossyImageCompression") != "01" and method is None:
            continue
        dataset.LossyImageCompression = "01"
        for keyword in _LOSSY_ELEMENTS[1:]:
            element = valid(header, keyword)
            if element is not None and not element.is_empty:
                dataset[keyword] = copy.deepcopy(element)
        if method is not None and "LossyImageCompressionMethod" not in dataset:
            dataset.LossyImageCompressionMethod = method
        if "LossyImageCompressionRatio" not in dataset:
            dataset.LossyImageCompressionRatio = _ratio(instance)
        return


def _ratio(instance: Instance) -> str:
    header = instance.header
    samples = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1))
    samples *= int(header.get("NumberOfFrames") or 1)
    size = samples * int(header.get("BitsAllocated", 8)) / 8
    return f"{max(1.0, size / instance.path.stat().st_size):.3f}"


def code_item(code: Code) -> Dataset:
    """Return a code as an item of a code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def _set_times(dataset: Dataset, work: Encoding) -> None:
    when = zone_of(work.study.header, work.stamp.when)
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{event}Date", date)
        setattr(dataset, f"{event}Time", time)
    dataset.TimezoneOffsetFromUTC = when.strftime("%z")[:5]


def _set_dimension_organization(dataset: Dataset, stamp: Stamp, place: Place) -> None:
    # highdicom draws this UID by chance.
    uid = derived_uid("dimension", stamp.identity, place.kind, place.number)
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(sequence, ()):
            item.DimensionOrganizationUID = uid


def _contribution(work: Encoding, model: ModelIdentity, notes: tuple[str, ...]) -> Dataset:
    """Return the item that names the model (IHE AIR; PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    item.Manufacturer = plain(model.manufacturer)
    item.ManufacturerModelName = plain(model.name)
    item.SoftwareVersions = plain(model.version)
    item.DeviceUID = model_uid(work.stamp, model)
    when = zone_of(work.study.header, work.stamp.when)
    item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S%z")
    words = [f"{NOT_VERIFIED}."]
    if model.reference:
        words.append(f"{REFERENCE_NOTE.capitalize()}.")
    words.append(f"Pixels by {PIXEL_PATH}.")
    item.ContributionDescription = " ".join([*words, *notes])[:1024]
    return item


def _identify_private_scheme(dataset: Dataset) -> None:
    used = any(
        element.keyword == "CodingSchemeDesignator" and element.value == PRIVATE_SCHEME
        for element in _walk(dataset)
    )
    if used:
        item = Dataset()
        item.CodingSchemeDesignator = PRIVATE_SCHEME
        item.CodingSchemeName = PRIVATE_SCHEME_NAME
        item.CodingSchemeResponsibleOrganization = MANUFACTURER
        dataset.CodingSchemeIdentificationSequence = [item]


def _choose_character_set(dataset: Dataset, identity: Identity) -> None:
    """Keep the source's character set, and so the bytes of its names, where our text allows it.

    Our text is ASCII but for what a model or a site wrote. Only then all of it becomes UTF-8.
    """
    source = identity.elements
    ours = (element for element in dataset if element.tag not in source)
    if not all(_text(element).isascii() for top in ours for element in _walk_element(top)):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        return
    dataset.pop("SpecificCharacterSet", None)
    if "SpecificCharacterSet" in source:
        dataset.SpecificCharacterSet = source.SpecificCharacterSet
    identity.copy_encoded_to(dataset)
    # pydicom writes encoded elements as they are only where nothing is to be encoded anew.
    stated = dataset.get("SpecificCharacterSet")
    charset = convert_encodings(stated) if stated else None
    dataset.set_original_encoding(False, True, charset)  # noqa: FBT003 - explicit VR, little endian


def _text(element: DataElement) -> str:
    if element.VR not in _TEXT_VRS or element.is_empty:
        return ""
    values = element.value if element.VM > 1 else [element.value]
    return "".join(str(value) for value in values)


def _walk(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield from _walk_element(element)


def _walk_element(element: DataElement) -> Iterator[DataElement]:
    if element.VR == "SQ":
        for item in element.value:
            yield from _walk(item)
    else:
        yield element


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
