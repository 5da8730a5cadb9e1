"""The data set of a Workitem."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_ai.errors import WorklistError
from pacs_ai.worklist import Audience, Decision, Priority
from pacs_ai.worklist.workitem import (
    EARLIER,
    OUTLIVED,
    UNVERIFIED,
    Reference,
    build,
    from_json,
    is_final,
    keep_up,
    outlive,
    renew,
    to_json,
)

DATA = Path(__file__).parents[4] / "shared" / "data"
WEEK = timedelta(days=7)
WHEN = datetime(2026, 3, 1, 8, 30, tzinfo=ZoneInfo("Europe/Berlin"))

# PS3.4 Table CC.2.5-3, N-CREATE: what the SCP has to hold.
TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepModificationDateTime",
    "ProcedureStepLabel",
    "WorklistLabel",
    "ScheduledProcedureStepStartDateTime",
    "ExpectedCompletionDateTime",
    "InputReadinessState",
    "ProcedureStepState",
]
TYPE_2 = [
    "TransactionUID",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
    "InputInformationSequence",
    "StudyInstanceUID",
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
    "ReferencedRequestSequence",
    "MedicalAlerts",
    "PregnancyStatus",
    "SpecialNeeds",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
]


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "label": "AI-CXR-REVIEW",
        "priority": Priority.HIGH,
        "performers": ("thoracic",),
        "fallback": ("duty",),
        "audience": Audience.READER,
        "expires": timedelta(hours=4),
        "reason": "Lung opacity present and grounded",
    }
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def header(**elements: object) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = "1.2.3"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "P1"
    dataset.AccessionNumber = "A1"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def reference(number: int, series: str = "1.2.3.4", retrieve_from: str = "PACS") -> Reference:
    return Reference(
        "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.4.{number}", series, "1.2.3", retrieve_from
    )


def made(
    of_header: Dataset | None = None,
    inputs: tuple[Reference, ...] = (reference(1),),
    when: datetime = WHEN,
    **changes: object,
) -> Dataset:
    return build(
        decision=decision(**changes),
        header=header() if of_header is None else of_header,
        inputs=inputs,
        uid="2.25.7",
        when=when,
        organization="St. Elsewhere",
    )


def test_every_type_1_attribute_has_a_value_and_every_type_2_is_there() -> None:
    dataset = made(Dataset.from_json({"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}), inputs=())
    assert [keyword for keyword in TYPE_1 if not dataset.get(keyword)] == []
    assert [keyword for keyword in TYPE_2 if keyword not in dataset] == []


def test_a_new_workitem_is_scheduled_for_interpretation_and_ready() -> None:
    dataset = made()
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.34.6.1"
    assert dataset.SOPInstanceUID == "2.25.7"
    assert dataset.ProcedureStepState == "SCHEDULED"
    assert dataset.InputReadinessState == "READY"
    (code,) = dataset.ScheduledWorkitemCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("110005", "DCM")
    assert dataset.WorklistLabel == "AI-CXR-REVIEW"
    assert dataset.ScheduledProcedureStepPriority == "HIGH"


def test_the_reason_stands_in_the_comments_and_says_unverified_ai() -> None:
    dataset = made(reason="Lung opacity present and grounded.", fallback=())
    assert dataset.CommentsOnTheScheduledProcedureStep == (
        f"Lung opacity present and grounded. {UNVERIFIED}"
    )
    assert "unverified ai" in UNVERIFIED.lower()


def test_the_label_shown_to_people_is_neutral() -> None:
    assert "opacity" not in made().ProcedureStepLabel.lower()


def test_a_status_workitem_is_not_an_interpretation() -> None:
    dataset = made(audience=Audience.IMAGING_IT, label="AI-STATUS", performers=())
    (code,) = dataset.ScheduledWorkitemCodeSequence
    assert code.CodingSchemeDesignator == "99PACSAI"
    assert code.CodeValue != "110005"
    assert "nterpretation" not in dataset.ProcedureStepLabel
    assert dataset.ScheduledHumanPerformersSequence == []


def test_an_unchanged_priority_is_medium_in_a_new_workitem() -> None:
    assert made(priority=None).ScheduledProcedureStepPriority == "MEDIUM"


def test_performers_are_coded_in_the_private_scheme() -> None:
    dataset = made(performers=("thoracic", "a-performer-with-a-long-code"))
    first, second = dataset.ScheduledHumanPerformersSequence
    code = first.HumanPerformerCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("thoracic", "99PACSAI")
    assert first.HumanPerformerName == "thoracic"
    assert first.HumanPerformerOrganization == "St. Elsewhere"
    long_code = second.HumanPerformerCodeSequence[0]
    assert long_code.LongCodeValue == "a-performer-with-a-long-code"
    assert "CodeValue" not in long_code


def test_times_carry_the_zone_of_the_site() -> None:
    dataset = made()
    assert dataset.ScheduledProcedureStepStartDateTime == "20260301083000+0100"
    assert dataset.ScheduledProcedureStepExpirationDateTime == "20260301123000+0100"
    assert dataset.ExpectedCompletionDateTime == "20260301123000+0100"


def test_a_decision_without_expiry_never_expires_and_still_has_a_completion() -> None:
    dataset = made(expires=None)
    assert "ScheduledProcedureStepExpirationDateTime" not in dataset
    assert dataset.ExpectedCompletionDateTime == "20260302083000+0100"


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(WorklistError, match="time zone"):
        made(when=WHEN.replace(tzinfo=None))


def test_a_header_without_study_is_refused() -> None:
    with pytest.raises(WorklistError, match="StudyInstanceUID"):
        made(Dataset())


def test_patient_and_request_are_copied_from_the_source() -> None:
    dataset = made(header(PatientSex="F", PatientBirthDate="19700101"))
    assert dataset.PatientName == "Doe^Jane"
    assert dataset.PatientID == "P1"
    assert dataset.PatientSex == "F"
    assert dataset.PatientBirthDate == "19700101"
    (request,) = dataset.ReferencedRequestSequence
    assert request.AccessionNumber == "A1"
    assert request.StudyInstanceUID == "1.2.3"
    for keyword in ("RequestedProcedureID", "OrderPlacerIdentifierSequence"):
        assert keyword in request


def test_what_the_source_does_not_say_is_empty_and_not_invented() -> None:
    dataset = made(header(AccessionNumber=None))
    assert dataset.ReferencedRequestSequence == []
    assert not dataset.PatientSex
    assert not dataset.PregnancyStatus


def test_each_request_of_the_study_is_named() -> None:
    requests = []
    for accession in ("A1", "A2"):
        item = Dataset()
        item.AccessionNumber = accession
        item.RequestedProcedureDescription = f"procedure {accession}"
        requests.append(item)
    dataset = made(header(AccessionNumber=None, RequestAttributesSequence=Sequence(requests)))
    assert [one.AccessionNumber for one in dataset.ReferencedRequestSequence] == ["A1", "A2"]
    assert dataset.ReferencedRequestSequence[1].RequestedProcedureDescription == "procedure A2"


def test_a_value_that_breaks_its_representation_is_left_out() -> None:
    broken = Dataset.from_json(to_json(header()))
    broken["AccessionNumber"]._value = "x" * 40
    broken.PatientBirthDate = ""
    broken["PatientBirthDate"]._value = "not a date"
    dataset = made(broken)
    assert not dataset.ReferencedRequestSequence[0].AccessionNumber
    assert not dataset.PatientBirthDate
    assert dataset.PatientID == "P1"


def test_several_values_are_copied() -> None:
    alerts = made(header(MedicalAlerts=["latex", "contrast"])).MedicalAlerts
    assert list(alerts) == ["latex", "contrast"]


def test_inputs_are_grouped_by_series_and_say_where_to_get_them() -> None:
    dataset = made(inputs=(reference(1), reference(2), reference(3, "1.2.3.9")))
    first, second = dataset.InputInformationSequence
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == ("1.2.3", "1.2.3.4")
    assert [one.ReferencedSOPInstanceUID for one in first.ReferencedSOPSequence] == [
        "1.2.3.4.1",
        "1.2.3.4.2",
    ]
    assert first.DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"
    assert first.TypeOfInstances == "DICOM"
    assert second.SeriesInstanceUID == "1.2.3.9"


def test_a_workitem_without_retrievable_inputs_is_not_called_ready() -> None:
    assert made(inputs=()).InputReadinessState == "INCOMPLETE"


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        (Priority.LOW, Priority.HIGH, "HIGH"),
        (Priority.MEDIUM, Priority.HIGH, "HIGH"),
        (Priority.MEDIUM, Priority.LOW, "MEDIUM"),
        (Priority.HIGH, Priority.MEDIUM, "HIGH"),
        (Priority.HIGH, Priority.LOW, "HIGH"),
        (Priority.LOW, Priority.LOW, "LOW"),
        (Priority.LOW, None, "LOW"),
        (Priority.HIGH, None, "HIGH"),
    ],
)
def test_a_priority_only_rises(before: Priority, asked: Priority | None, after: str) -> None:
    dataset = made(priority=before)
    changed = again(dataset, made(priority=asked), asked)
    assert changed.ScheduledProcedureStepPriority == after
    assert dataset.ScheduledProcedureStepPriority == before.value


def again(kept: Dataset, fresh: Dataset, asked: Priority | None = None, **later: Any) -> Dataset:
    return renew(kept, fresh, asked=asked, when=WHEN + timedelta(**later))


def test_a_look_that_finds_the_same_changes_nothing() -> None:
    kept = from_json(json.loads(json.dumps(to_json(made()))))
    later = WHEN + timedelta(hours=1)
    for now in (
        again(kept, made(), Priority.HIGH, hours=1),
        keep_up(kept, header=header(), inputs=(reference(1),), when=later),
    ):
        assert to_json(now) == to_json(kept)


def test_a_workitem_is_never_due_later_than_it_was() -> None:
    kept = made(expires=timedelta(hours=4))
    later = WHEN + timedelta(days=3)
    renewed = again(kept, made(when=later, expires=timedelta(hours=4)), Priority.HIGH, days=3)
    sooner = again(made(expires=None), made(expires=timedelta(hours=1)), Priority.HIGH)
    for keyword in ("ExpectedCompletionDateTime", "ScheduledProcedureStepExpirationDateTime"):
        assert renewed[keyword].value == kept[keyword].value == "20260301123000+0100"
        assert sooner[keyword].value == "20260301093000+0100"


@pytest.mark.parametrize("expires", [timedelta(hours=4), None])
def test_what_becomes_urgent_is_not_born_expired(expires: timedelta | None) -> None:
    kept = made(priority=None, expires=timedelta(seconds=1))
    later = WHEN + timedelta(hours=2)
    raised = again(kept, made(when=later, expires=expires), Priority.HIGH, hours=2)
    assert raised.ScheduledProcedureStepPriority == "HIGH"
    assert raised.ExpectedCompletionDateTime > "20260301103000+0100"
    until = raised.get("ScheduledProcedureStepExpirationDateTime")
    assert until == ("20260301143000+0100" if expires else None)


def test_the_reason_and_performers_of_a_priority_stay_with_it() -> None:
    kept = made(priority=Priority.HIGH, reason="Urgent", performers=("thoracic",))
    fresh = made(priority=None, reason="Less so", performers=("general", "thoracic"))
    renewed = kept
    for _ in range(3):
        renewed = again(renewed, fresh)
    said = renewed.CommentsOnTheScheduledProcedureStep
    assert said.startswith("Less so.")
    assert said.count(EARLIER + "Urgent.") == said.count(EARLIER) == 1
    performers = [one.HumanPerformerName for one in renewed.ScheduledHumanPerformersSequence]
    assert performers == ["thoracic", "general"]
    raised = again(fresh, kept, Priority.HIGH)
    assert raised.CommentsOnTheScheduledProcedureStep.startswith("Urgent.")
    assert len(raised.ScheduledHumanPerformersSequence) == 1


def test_who_takes_it_when_no_performer_does_is_told_in_words() -> None:
    comment = made(fallback=("duty", "night")).CommentsOnTheScheduledProcedureStep
    assert comment.endswith(" If no performer takes it: duty, night.")
    assert "performer" not in made(fallback=()).CommentsOnTheScheduledProcedureStep


def test_a_workitem_that_nothing_asks_for_any_more_stays_for_the_reader_and_says_so_once() -> None:
    kept = made(priority=Priority.HIGH)
    later = WHEN + timedelta(hours=1)
    first = outlive(kept, when=later)
    assert (first.ProcedureStepState, first.ScheduledProcedureStepPriority) == ("SCHEDULED", "HIGH")
    assert first.CommentsOnTheScheduledProcedureStep.count(OUTLIVED) == 1
    assert first.ScheduledProcedureStepModificationDateTime == "20260301093000+0100"
    assert outlive(first, when=later + timedelta(hours=1)) == first
    asked_again = again(first, made(priority=Priority.LOW), Priority.LOW)
    assert OUTLIVED not in asked_again.CommentsOnTheScheduledProcedureStep


def test_a_state_that_is_over_ends_its_workitem_as_the_standard_asks() -> None:
    kept = made(audience=Audience.IMAGING_IT, priority=None)
    ended = outlive(kept, when=WHEN)
    assert ended.ProcedureStepState == "CANCELED"
    assert is_final(ended)
    assert not is_final(kept)
    (progress,) = ended.ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepCancellationDateTime == "20260301083000+0100"
    (reason,) = progress.ProcedureStepDiscontinuationReasonCodeSequence
    assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110513", "DCM")
    assert outlive(ended, when=WHEN + timedelta(days=1)) == ended


def test_a_workitem_keeps_up_with_its_patient_and_inputs() -> None:
    kept = made()
    now = keep_up(
        kept, header=header(PatientName="Doe^June"), inputs=(reference(2),), when=WHEN + WEEK
    )
    assert now.PatientName == "Doe^June"
    assert "1.2.3.4.2" in str(now.InputInformationSequence)
    assert now.ScheduledProcedureStepModificationDateTime == "20260308083000+0100"
    assert keep_up(kept, header=header(), inputs=(reference(1),), when=WHEN + WEEK) == kept


@pytest.mark.parametrize("change", ["renew", "keep_up", "outlive"])
def test_what_a_person_took_up_is_not_touched(change: str) -> None:
    taken = made()
    taken.ProcedureStepState = "IN PROGRESS"
    changed = {
        "renew": lambda: again(taken, made(header(PatientName="Doe^June")), Priority.HIGH),
        "keep_up": lambda: keep_up(
            taken, header=header(PatientName="Doe^June"), inputs=(), when=WHEN
        ),
        "outlive": lambda: outlive(taken, when=WHEN),
    }[change]()
    assert changed == taken


def test_a_number_that_is_none_in_an_item_is_left_out_and_the_rest_is_told() -> None:
    other = Dataset()
    other.PatientID = "P2"
    other.PatientWeight = "70"
    other.add_new("SelectorFDValue", "FD", [math.nan])
    other.add_new(0x00090010, "LO", "SOMEONE")
    other.add_new("SmallestImagePixelValue", "US", 3)
    dataset = made(header(OtherPatientIDsSequence=[other]))
    model = json.dumps(to_json(dataset), allow_nan=False)
    (item,) = json.loads(model)["00101002"]["Value"]
    assert sorted(item) == ["00100020", "00101030", "00720074"]
    assert item["00100020"]["Value"] == ["P2"]
    assert "Value" not in item["00720074"]


def test_the_same_arguments_give_the_same_json() -> None:
    first, second = (json.dumps(to_json(made()), sort_keys=True) for _ in range(2))
    assert first == second


def test_json_reads_back_as_the_same_data_set() -> None:
    dataset = made(header(PatientName="山田^太郎"))
    model = json.loads(json.dumps(to_json(dataset)))
    assert to_json(from_json(model)) == model
    assert from_json(model).PatientName == "山田^太郎"
    assert model["00741200"] == {"vr": "CS", "Value": ["HIGH"]}
    assert model["00081195"] == {"vr": "UI"}


def test_a_name_in_another_character_set_is_told_rightly() -> None:
    source = dcmread(DATA / "charsets" / "chrH32.dcm", stop_before_pixels=True)
    dataset = made(source)
    assert str(dataset.PatientName) == str(source.PatientName)
    assert "山田" in json.dumps(to_json(dataset), ensure_ascii=False)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_palette.dcm"])
def test_real_headers_make_workitems(name: str) -> None:
    source = dcmread(str(get_testdata_file(name)), stop_before_pixels=True)
    dataset = made(source, when=datetime(2026, 3, 1, tzinfo=UTC))
    assert dataset.PatientID == source.PatientID
    assert dataset.ScheduledProcedureStepStartDateTime == "20260301000000+0000"
    json.dumps(to_json(dataset))
