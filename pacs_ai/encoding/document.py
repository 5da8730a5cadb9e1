"""What every Structured Report of the gateway says of itself: who observed, what, on which images.

PS3.16 TID 1001 to 1004 (observation context), TID 1600 (image library), TID 4019 (algorithm); PS3.3
C.17.2 (SR Document General). The verification flag is always UNVERIFIED: no person has looked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import highdicom as hd
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode

from pacs_ai.encoding import Encoding, Stamp
from pacs_ai.encoding.equipment import (
    MODEL_NAME,
    REFERENCE_NOTE,
    Place,
    algorithm_name,
    gateway_uid,
    plain,
)
from pacs_ai.encoding.identity import Identity, identity_of, valid
from pacs_ai.results import JobResults, ModelIdentity
from pacs_ai.study import MANUFACTURER
from pacs_ai.terms import PRIVATE_SCHEME, Code

CHEST_XRAY = Code("399208008", "SCT", "Plain chest X-ray")
UNSPECIFIED = {
    "CR": Code("43468-8", "LN", "XR unspecified body region"),
    "DX": Code("43468-8", "LN", "XR unspecified body region"),
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
    "NM": Code("49118-3", "LN", "NM unspecified body region"),
}
"""Procedure Reported by modality when the source names no procedure (PS3.16 CID 100)."""
UNKNOWN_PROCEDURE = Code(
    "IMAGING", PRIVATE_SCHEME, "Imaging procedure, not specified by the source"
)

_CHEST = frozenset({"CHEST", "THORAX"})
SOURCE = PydicomCode("260753009", "SCT", "Source")
COMMENT = codes.DCM.Comment
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
_CONTEXT = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def no_finding(entry: JobResults) -> str:
    """Return the sentence that stands wherever a model flagged nothing."""
    return f"{entry.nothing_flagged.capitalize()} by {entry.model.label}; not a normal result"


def done_without(entry: JobResults) -> str:
    """Return the same as what a model's run came to."""
    return f"done, {entry.nothing_flagged}; not a normal result"


def observation_context(stamp: Stamp) -> hd.sr.ObservationContext:
    """Return who observed: this gateway, a device, always with the same UID."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=str(gateway_uid(stamp)),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=plain(stamp.installation),
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, device)
    )


def algorithm(model: ModelIdentity, entry: JobResults) -> hd.sr.AlgorithmIdentification:
    """Return which model said it (PS3.16 TID 4019)."""
    parameters = [f"rule={entry.rule}"]
    if model.reference:
        parameters.append(REFERENCE_NOTE)
    return hd.sr.AlgorithmIdentification(
        name=algorithm_name(model),
        version=plain(model.version),
        manufacturer=plain(model.manufacturer),
        family=codes.DCM.ArtificialIntelligence,
        parameters=parameters,
    )


def procedures(work: Encoding, entry: JobResults) -> tuple[PydicomCode, ...]:
    """Return the imaging procedure that was analysed (121058, DCM): never the algorithm.

    The codes of the source's Procedure Code Sequence or of its request, else one by modality. A
    radiograph is called one of the chest only where its header or its rule's model says so.
    """
    header = work.study.instance(entry.sources[0]).header if entry.sources else work.study.header
    items = list(_code_items(header, "ProcedureCodeSequence"))
    requests = valid(header, "RequestAttributesSequence")
    for request in requests.value if requests is not None else ():
        items += _code_items(request, "RequestedProcedureCodeSequence")
    if items:
        found = dict.fromkeys(
            PydicomCode(str(one.CodeValue), str(one.CodingSchemeDesignator), str(one.CodeMeaning))
            for one in items
        )
        return tuple(found)
    modality = str(header.get("Modality", "") or "")
    part = str(header.get("BodyPartExamined", "") or "").strip().upper()
    code = UNSPECIFIED.get(modality, UNKNOWN_PROCEDURE)
    if modality in {"CR", "DX"} and (part in _CHEST or entry.kind == "cxrreport"):
        code = CHEST_XRAY
    return (PydicomCode(code.value, code.scheme, code.meaning),)


def _code_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    element = valid(dataset, keyword)
    if element is None:
        return []
    return [
        item
        for item in element.value
        if all(item.get(one) for one in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    ]


def image_library(sources: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    """Return the image library (PS3.16 TID 1600): every image that was analysed, in one group.

    Parameters
    ----------
    sources : sequence of Dataset
        As :func:`pacs_ai.encoding.identity.light_source` gives them, of one modality.
    """
    group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence()
    modality = _modality_code(str(sources[0].Modality))
    if modality is not None:
        group.ContentSequence.append(
            hd.sr.CodeContentItem(codes.DCM.Modality, modality, relationship_type=_CONTEXT)
        )
    if "FrameOfReferenceUID" in sources[0]:
        group.ContentSequence.append(
            hd.sr.UIDRefContentItem(
                codes.DCM.FrameOfReferenceUID,
                str(sources[0].FrameOfReferenceUID),
                relationship_type=_CONTEXT,
            )
        )
    for source in sources:
        group.ContentSequence.append(image_item(source, _CONTAINS))
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def image_item(
    source: Dataset, relationship: hd.sr.RelationshipTypeValues
) -> hd.sr.ImageContentItem:
    """Return a reference to a source image."""
    return hd.sr.ImageContentItem(
        name=SOURCE,
        referenced_sop_class_uid=str(source.SOPClassUID),
        referenced_sop_instance_uid=str(source.SOPInstanceUID),
        relationship_type=relationship,
    )


def _modality_code(modality: str) -> PydicomCode | None:
    known = {code.value: code for code in codes.CID29.concepts.values()}
    return known.get(modality)


def text_item(text: str) -> hd.sr.TextContentItem:
    """Return a comment (121106, DCM) for people."""
    return hd.sr.TextContentItem(COMMENT, text, relationship_type=_CONTAINS)


def unverified(
    kind: type[hd.sr.EnhancedSR | hd.sr.Comprehensive3DSR],
    content: Dataset | hd.sr.MeasurementReport,
    evidence: Sequence[Dataset],
    work: Encoding,
    place: Place,
) -> Dataset:
    """Make a document that is COMPLETE, PRELIMINARY and UNVERIFIED (PS3.3 C.17.2).

    Parameters
    ----------
    kind : type
        highdicom's class of the SOP Class.
    content : Dataset or MeasurementReport
        The root content item.
    evidence : sequence of Dataset
        Every Instance that the tree refers to.
    """
    dataset: Dataset = kind(
        evidence=evidence,
        content=content,
        series_instance_uid=place.series_uid(work.stamp),
        series_number=place.series_number(work),
        sop_instance_uid=place.instance_uid(work.stamp),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    requests = request_of(work.study.header, identity_of(work.study.instances[0]))
    if requests:
        dataset.ReferencedRequestSequence = requests
    return dataset


def request_of(header: Dataset, identity: Identity) -> list[Dataset]:
    """Return Referenced Request Sequence (0040,A370), where the source knows its accession.

    Returns
    -------
    list of Dataset
        One item, or none when the Accession Number is empty.
    """
    if not identity.elements.get("AccessionNumber"):
        return []
    item = Dataset()
    item.StudyInstanceUID = identity.elements.StudyInstanceUID
    item.ReferencedStudySequence = []
    item.AccessionNumber = identity.elements.AccessionNumber
    for keyword in (
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        "RequestedProcedureCodeSequence",
    ):
        element = _requested(header, keyword)
        if element is None:
            setattr(item, keyword, [] if keyword.endswith("Sequence") else None)
        else:
            item.add(copy.deepcopy(element))
    return [item]


def _requested(header: Dataset, keyword: str) -> DataElement | None:
    found = valid(header, keyword)
    if found is not None and not found.is_empty:
        return found
    requests = valid(header, "RequestAttributesSequence")
    for request in requests.value if requests is not None else ():
        found = valid(request, keyword)
        if found is not None and not found.is_empty:
            return found
    return None
