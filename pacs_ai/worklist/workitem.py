"""The data set of a Workitem: a Unified Procedure Step as it is created (PS3.4 CC.2.5).

Every Type 1 and Type 2 attribute of an N-CREATE is there, a Type 2 attribute empty where nothing is
known. What the header of the source says of patient and request is copied; a value that breaks its
own Value Representation is left out rather than repaired. The same arguments give the same data
set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import validate_value

from pacs_ai.errors import WorklistError
from pacs_ai.study import items, unreadable
from pacs_ai.worklist import Audience, Decision, Priority

UNIFIED_PROCEDURE_STEP_PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""SOP Class of every Workitem, whichever service reads it (PS3.4 CC.3)."""

UNVERIFIED = "Unverified AI output; a person must read the Study."
OUTLIVED = " The newest results do not ask for it any more."
EARLIER = " Its priority was given for: "

TURNAROUND = timedelta(hours=24)
"""Expected completion of a Workitem whose rule sets no expiry."""

_SCHEME = "99PACSAI"
_SCHEDULED = "SCHEDULED"
_DT = "%Y%m%d%H%M%S%z"
_RANK = {Priority.LOW: 0, Priority.MEDIUM: 1, Priority.HIGH: 2}
_LABELS = {
    Audience.READER: "Interpretation, AI results available",
    Audience.IMAGING_IT: "AI processing to be looked at",
}
_CODES = {
    Audience.READER: ("110005", "DCM", "Interpretation"),
    Audience.IMAGING_IT: ("PROCESSING-STATE", _SCHEME, "Look at the state of processing"),
}

_NOT_COPIED = frozenset({"FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Nothing of a patient or request is written so, and JSON has no word for a number that is none."""

_NOTHING_KNOWN = (
    "TransactionUID",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""Type 2, empty in a Workitem that is only scheduled."""

_FROM_HEADER = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "MedicalAlerts",
    "PregnancyStatus",
    "SpecialNeeds",
)

_FROM_STUDY_REQUEST = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
)

_FROM_REQUEST_ATTRIBUTES = (
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """An Instance that the reader needs, and the AE it can be retrieved from."""

    SOPClassUID: str
    SOPInstanceUID: str
    SeriesInstanceUID: str
    StudyInstanceUID: str
    retrieve_ae_title: str


def build(
    *,
    decision: Decision,
    header: Dataset,
    inputs: tuple[Reference, ...],
    uid: str,
    when: datetime,
    organization: str,
) -> Dataset:
    """Make the data set of a new Workitem, SCHEDULED.

    Parameters
    ----------
    decision : Decision
        What the worklist rule asks for.
    header : Dataset
        Of a source Instance; patient and request are copied from it.
    inputs : tuple of Reference
        What the reader needs: the source Instances, and the results that were delivered. Without
        any, the Workitem says INCOMPLETE rather than READY.
    uid : str
        SOP Instance UID, derived from the Study and the label so that it is made once.
    when : datetime
        When it was decided, with its time zone.
    organization : str
        Name of the site, for Human Performer's Organization (0040,4036).

    Returns
    -------
    Dataset
        Without File Meta Information, in ISO_IR 192.

    Raises
    ------
    WorklistError
        When the header has no StudyInstanceUID, or `when` has no time zone.
    """
    if when.tzinfo is None:
        raise WorklistError("the time of a Workitem has no time zone: give an aware datetime")
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = UNIFIED_PROCEDURE_STEP_PUSH
    dataset.SOPInstanceUID = uid
    _empty(dataset, _NOTHING_KNOWN)
    _put_subject(dataset, header, inputs)
    _schedule(dataset, decision, when)
    dataset.ScheduledHumanPerformersSequence = Sequence(
        _performer(code, organization) for code in decision.performers
    )
    dataset.ProcedureStepState = _SCHEDULED
    return dataset


def _put_subject(dataset: Dataset, header: Dataset, inputs: tuple[Reference, ...]) -> None:
    """Write what a Workitem is about: Study, patient, request and Instances."""
    study = header.get("StudyInstanceUID")
    if not study:
        raise WorklistError("StudyInstanceUID is missing: no Workitem can name its Study")
    dataset.StudyInstanceUID = study
    _copy(header, dataset, _FROM_HEADER)
    dataset.ReferencedRequestSequence = _requests(header)
    dataset.InputInformationSequence = _input_information(inputs)
    dataset.InputReadinessState = "READY" if inputs else "INCOMPLETE"


def renew(kept: Dataset, fresh: Dataset, *, asked: Priority | None, when: datetime) -> Dataset:
    """Return a Workitem as the results of now ask for it.

    Patient, inputs, reason and performers become those of now. A priority only rises; where the earlier one
    is the higher, its reason and performers stay beside those of now. It is not put off: where it was due
    sooner and still is to come, that stays. What a person has taken up (not SCHEDULED) is not touched.

    Parameters
    ----------
    kept, fresh : Dataset
        Both of one Study and Worklist Label.
    asked : Priority or None
        What the rules ask for now; None leaves the priority as it is.
    when : datetime
        Becomes the Modification DateTime (0040,4010) where anything changes; with its time zone.
    """
    if kept.ProcedureStepState != _SCHEDULED:
        return kept
    before = Priority(kept.ScheduledProcedureStepPriority)
    raised = asked is not None and _RANK[asked] > _RANK[before]
    renewed = deepcopy(fresh)
    if not raised:
        renewed.ScheduledProcedureStepPriority = before.value
        if _RANK[before] > _RANK[asked or Priority.MEDIUM]:
            _keep_reason(renewed, kept)
    renewed.ScheduledProcedureStepStartDateTime = kept.ScheduledProcedureStepStartDateTime
    for keyword in ("ExpectedCompletionDateTime", "ScheduledProcedureStepExpirationDateTime"):
        due = [one for one in (kept.get(keyword), fresh.get(keyword)) if one]
        # A time that is over would hide what has just become urgent.
        if raised:
            due = [one for one in due if _moment(one) > when]
        if due:
            setattr(renewed, keyword, min(due, key=_moment))
    modified = kept.ScheduledProcedureStepModificationDateTime
    renewed.ScheduledProcedureStepModificationDateTime = modified
    return _modified(kept, renewed, when)


def _keep_reason(renewed: Dataset, kept: Dataset) -> None:
    """Say beside the reason and performers of now those that the higher priority was given for."""
    said = kept.CommentsOnTheScheduledProcedureStep.removesuffix(OUTLIVED).rpartition(EARLIER)[2]
    renewed.CommentsOnTheScheduledProcedureStep += EARLIER + said
    performers = [*kept.ScheduledHumanPerformersSequence]
    performers += [one for one in renewed.ScheduledHumanPerformersSequence if one not in performers]
    renewed.ScheduledHumanPerformersSequence = Sequence(performers)


def keep_up(
    kept: Dataset, *, header: Dataset, inputs: tuple[Reference, ...], when: datetime
) -> Dataset:
    """Return a Workitem with the patient, request and inputs of now, whatever asked for it.

    What a person has taken up (not SCHEDULED) is not touched.

    Parameters
    ----------
    kept : Dataset
    header, inputs
        As :func:`build` takes them.
    when : datetime
        With its time zone.
    """
    if kept.ProcedureStepState != _SCHEDULED:
        return kept
    changed = deepcopy(kept)
    _put_subject(changed, header, inputs)
    return _modified(kept, changed, when)


def outlive(kept: Dataset, *, when: datetime) -> Dataset:
    """Return a Workitem that the results of now, all of them, do not ask for.

    A Study that was listed to be read stays listed, and says so: to take it away would be to say that
    nothing is there. What was told of the state of processing is over, and is CANCELED. What a person
    has taken up (not SCHEDULED) is not touched.
    """
    if kept.ProcedureStepState != _SCHEDULED:
        return kept
    changed = deepcopy(kept)
    said = kept.CommentsOnTheScheduledProcedureStep.removesuffix(OUTLIVED)
    changed.CommentsOnTheScheduledProcedureStep = said + OUTLIVED
    if kept.ScheduledWorkitemCodeSequence[0].CodeValue == _CODES[Audience.IMAGING_IT][0]:
        _cancel(changed, when)
    return _modified(kept, changed, when)


def _modified(before: Dataset, after: Dataset, when: datetime) -> Dataset:
    if to_json(after) != to_json(before):  # an empty value reads back in another form
        after.ScheduledProcedureStepModificationDateTime = _date_time(when)
    return after


def is_final(dataset: Dataset) -> bool:
    """Tell whether nothing can become of a Workitem any more (PS3.4 CC.1.1)."""
    return dataset.ProcedureStepState in ("COMPLETED", "CANCELED")


def _cancel(dataset: Dataset, when: datetime) -> None:
    """Write what a final state needs (PS3.4 table CC.2.5-3)."""
    progress = Dataset()
    progress.ProcedureStepCancellationDateTime = _date_time(when)
    progress.ReasonForCancellation = OUTLIVED.strip()
    progress.ProcedureStepDiscontinuationReasonCodeSequence = Sequence(
        [_code("110513", "DCM", "Discontinued for unspecified reason")]
    )
    dataset.ProcedureStepProgressInformationSequence = Sequence([progress])
    dataset.ProcedureStepState = "CANCELED"


def to_json(dataset: Dataset) -> dict[str, Any]:
    """Return a Workitem in the DICOM JSON Model (PS3.18 F.2)."""
    return dataset.to_json_dict()


def from_json(model: Mapping[str, Any]) -> Dataset:
    """Read what :func:`to_json` wrote."""
    return Dataset.from_json(dict(model))


def _schedule(dataset: Dataset, decision: Decision, when: datetime) -> None:
    dataset.WorklistLabel = decision.label
    dataset.ProcedureStepLabel = _LABELS[decision.audience]
    dataset.ScheduledWorkitemCodeSequence = Sequence([_code(*_CODES[decision.audience])])
    priority = decision.priority or Priority.MEDIUM
    dataset.ScheduledProcedureStepPriority = priority.value
    comment = f"{decision.reason.rstrip('.')}. {UNVERIFIED}"
    if decision.fallback:
        comment += f" If no performer takes it: {', '.join(decision.fallback)}."
    dataset.CommentsOnTheScheduledProcedureStep = comment
    dataset.ScheduledProcedureStepModificationDateTime = _date_time(when)
    dataset.ScheduledProcedureStepStartDateTime = _date_time(when)
    dataset.ExpectedCompletionDateTime = _date_time(when + (decision.expires or TURNAROUND))
    if decision.expires is not None:
        dataset.ScheduledProcedureStepExpirationDateTime = _date_time(when + decision.expires)


def _performer(code: str, organization: str) -> Dataset:
    item = Dataset()
    item.HumanPerformerCodeSequence = Sequence([_code(code, _SCHEME, code)])
    item.HumanPerformerName = code
    item.HumanPerformerOrganization = organization
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    # Code Value is an SH of 16 characters (PS3.3 8.1); longer ones have an element of their own.
    setattr(item, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning[:64]
    return item


def _requests(header: Dataset) -> Sequence:
    """Return the requests that the header names; none when it names none (Type 2)."""
    attributes = header.get("RequestAttributesSequence") or []
    if not header.get("AccessionNumber") and not attributes:
        return Sequence()
    return Sequence(_request(header, of_request) for of_request in attributes or [Dataset()])


def _request(header: Dataset, of_request: Dataset) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = header.StudyInstanceUID
    # A Study may answer several requests, each with an accession of its own (PS3.3 C.7.3.1).
    accession = of_request if of_request.get("AccessionNumber") else header
    _copy(accession, item, _FROM_STUDY_REQUEST)
    _copy(of_request, item, _FROM_REQUEST_ATTRIBUTES)
    _empty(item, ("OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence"))
    return item


def _input_information(references: Iterable[Reference]) -> Sequence:
    """Return one item for each Series and AE it is retrieved from (PS3.3 10.22)."""
    grouped: dict[tuple[str, str, str], list[Reference]] = {}
    for reference in references:
        key = (
            reference.StudyInstanceUID,
            reference.SeriesInstanceUID,
            reference.retrieve_ae_title,
        )
        grouped.setdefault(key, []).append(reference)
    return Sequence(_series(*key, members) for key, members in grouped.items())


def _series(study: str, series: str, retrieve_from: str, members: list[Reference]) -> Dataset:
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID = study
    item.SeriesInstanceUID = series
    instances = []
    for member in members:
        instance = Dataset()
        instance.ReferencedSOPClassUID = member.SOPClassUID
        instance.ReferencedSOPInstanceUID = member.SOPInstanceUID
        instances.append(instance)
    item.ReferencedSOPSequence = Sequence(instances)
    retrieval = Dataset()
    retrieval.RetrieveAETitle = retrieve_from
    item.DICOMRetrievalSequence = Sequence([retrieval])
    return item


def _empty(dataset: Dataset, keywords: Iterable[str]) -> None:
    for keyword in keywords:
        setattr(dataset, keyword, Sequence() if dictionary_VR(keyword) == "SQ" else None)


def _copy(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    """Copy elements decoded, whatever their character set was; absent ones become empty."""
    for keyword in keywords:
        if dictionary_VR(keyword) == "SQ":
            setattr(target, keyword, Sequence(map(_copy_of, items(source, keyword))))
        else:
            value = None if unreadable(source, [keyword]) else source.get(keyword)
            setattr(target, keyword, _valid(keyword, value))


def _copy_of(item: Dataset) -> Dataset:
    """Return an item with the standard's own elements; an invalid one becomes empty."""
    known = [one for one in map(keyword_for_tag, item.keys()) if one]
    copied = Dataset()
    # "US or SS" is settled by pixels, which a Workitem has not.
    _copy(item, copied, [one for one in known if len(dictionary_VR(one)) == 2])
    return copied


def _valid(keyword: str, value: Any) -> Any:
    """Return a value as it may be written, or None when there is none or it breaks its VR."""
    if value is None or value == "":
        return None
    vr = dictionary_VR(keyword)
    if (
        vr in _NOT_COPIED or len(vr) != 2
    ):  # "US or SS" is settled by pixels, which a Workitem has not
        return None
    values = list(value) if isinstance(value, MultiValue) else [value]
    plain = [str(one) if vr == "PN" else one for one in values]
    try:
        for one in plain:
            validate_value(vr, one, RAISE)
    except ValueError:
        return None
    return plain if isinstance(value, MultiValue) else plain[0]


def _moment(written: str) -> datetime:
    """Read what :func:`_date_time` wrote."""
    return datetime.strptime(str(written), _DT)


def _date_time(when: datetime) -> str:
    """Write a DT with its offset from UTC (PS3.5 6.2), to the second."""
    return when.strftime(_DT)
