"""Which of a radiograph's pictures a model gets, and why each other one does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_ai.routing import Outcome, explain_text, route
from pacs_ai.study import Instance
from tests.unit.routing.studies import CXR, NOW, radiograph, routed, rules, study

CLOCK = {"AcquisitionDate": "20261123", "AcquisitionTime": "080000"}
LATER = {"AcquisitionDate": "20261123", "AcquisitionTime": "080500"}
DOSE = {"ExposureIndex": "412", "KVP": "120", "ImageAndFluoroscopyAreaDoseProduct": "0.71"}
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


def taken(*instances: Instance) -> Instance | None:
    """Return the frontal image that the report gets; None where the Study is not suitable."""
    routing = routed(instances, CXR)
    if not routing.jobs:
        assert routing.verdicts[-1].outcome is Outcome.NOT_SUITABLE
        return None
    (job,) = routing.jobs
    (frontal,) = job.inputs["frontal"]
    return frontal


def ranking(*instances: Instance) -> tuple[str, ...]:
    return routed(instances, CXR).verdicts[-1].details


def source_image(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    item.ReferencedSOPInstanceUID = uid
    return item


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        (
            {"PresentationIntentType": "FOR PROCESSING"},
            "raw detector data (PresentationIntentType is FOR PROCESSING",
        ),
        (
            {"SOPClassUID": DX_FOR_PROCESSING},
            "raw detector data (SOPClassUID is Digital X-Ray Image",
        ),
        (
            {"SeriesDescription": "Chest PA Bone-Suppressed"},
            "a post-processed picture (SeriesDescription has BONE SUPPRESSED",
        ),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "", "BONE_SUPPRESSED"]},
            "a post-processed picture (ImageType has BONE SUPPRESSED",
        ),
        (
            {"AcquisitionDeviceProcessingDescription": "ClearRead"},
            "a post-processed picture (AcquisitionDeviceProcessingDescription has CLEARREAD",
        ),
        (
            {"DerivationDescription": "soft tissue of dual energy"},
            "a post-processed picture (DerivationDescription has SOFT TISSUE",
        ),
        (
            {"ImageComments": "pneumothorax companion"},
            "a post-processed picture (ImageComments has COMPANION",
        ),
        ({"ImageComments": "REJECTED: motion"}, "a rejected image (ImageComments has REJECTED"),
        ({"SeriesDescription": "Rejected"}, "a rejected image (SeriesDescription has REJECTED"),
        ({"QualityControlImage": "YES"}, "an image of a phantom (QualityControlImage is YES"),
        (
            {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
            "a screenshot (ImageType has SCREEN",
        ),
        ({"SeriesDescription": "Dose Report"}, "a dose report (SeriesDescription has DOSE REPORT"),
    ],
)
def test_what_is_no_picture_to_be_read_is_left_out_with_the_reason(
    elements: dict[str, Any], why: str
) -> None:
    # It is the latest, so that only the reason keeps it from the model.
    good, other = radiograph(1, **CLOCK), radiograph(2, **LATER, **elements)
    assert taken(good, other) is good
    assert any(
        f"Instance 2.25.1.2.1 left out: it is {why}" in line for line in ranking(good, other)
    )
    assert f"left out: it is {why}" in explain_text(routed([good, other], CXR))
    assert "frontal images" not in str(routed([good, other], CXR).jobs[0].parameters["notes"])
    assert taken(other) is None
    assert why in routed([other], CXR).refusals[0].reason


@pytest.mark.parametrize(
    "elements",
    [
        {"SeriesDescription": "chest PA repeat"},
        {"ImageComments": "not rejected"},
        {"SeriesDescription": "neck soft tissue"},
        {"AcquisitionDeviceProcessingDescription": "edge enhancement medium"},
        {"ImageType": ["DERIVED", "PRIMARY"]},
        {"StudyDescription": "CXR with bone suppression"},
        {"QualityControlImage": "NO"},
    ],
)
def test_what_may_as_well_be_the_picture_to_be_read_is_taken(elements: dict[str, Any]) -> None:
    one = radiograph(**elements)
    assert taken(one) is one


@pytest.mark.parametrize(
    "same",
    [{"IrradiationEventUID": "2.25.77"}, CLOCK, DOSE],
    ids=["event", "time", "dose"],
)
@pytest.mark.parametrize(
    "elements",
    [
        {"SeriesDescription": "PA enhanced"},
        {"AcquisitionDeviceProcessingDescription": "EDGE"},
        {"ImageType": ["DERIVED", "PRIMARY"]},
    ],
)
def test_an_enhanced_companion_of_the_same_exposure_is_left_out(
    same: dict[str, Any], elements: dict[str, Any]
) -> None:
    plain = radiograph(1, ImageType=["ORIGINAL", "PRIMARY"], **same)
    given = {"ImageType": ["ORIGINAL", "PRIMARY"], **elements}
    companion = radiograph(2, ContentDate="20261123", ContentTime="0900", **same, **given)
    assert taken(companion, plain) is plain
    (line,) = (one for one in ranking(companion, plain) if "left out" in one)
    assert "Instance 2.25.1.1.1 of the same exposure" in line


def test_an_enhanced_image_of_another_exposure_stays_and_is_the_latest() -> None:
    early, late = radiograph(1, **CLOCK), radiograph(2, SeriesDescription="PA enhanced", **LATER)
    assert taken(early, late) is late
    # Equal doses do not make one exposure of two that the clock tells apart.
    dosed = radiograph(3, SeriesDescription="PA enhanced", **LATER, **DOSE)
    assert taken(radiograph(1, **CLOCK, **DOSE), dosed) is dosed
    events = [
        radiograph(1, IrradiationEventUID="2.25.7", ContentDate="20261123", ContentTime="08"),
        radiograph(
            2,
            IrradiationEventUID="2.25.8",
            ContentDate="20261123",
            ContentTime="09",
            SeriesDescription="PA enhanced",
            **DOSE,
        ),
    ]
    assert taken(*events) is events[1]


def test_a_lateral_is_no_companion_of_a_frontal_of_the_same_minute() -> None:
    frontal = radiograph(1, ImageType=["DERIVED", "PRIMARY"], **CLOCK)
    lateral = radiograph(2, ImageType=["ORIGINAL", "PRIMARY"], ViewPosition="LL", **CLOCK)
    (job,) = routed([frontal, lateral], CXR).jobs
    assert job.inputs == {"frontal": (frontal,), "lateral": (lateral,)}


def test_a_companion_that_names_its_source_is_left_out() -> None:
    plain = radiograph(1, **CLOCK)
    companion = radiograph(2, SourceImageSequence=[source_image(plain.SOPInstanceUID)], **LATER)
    assert taken(plain, companion) is plain
    assert "made from 2.25.1.1.1 (SourceImageSequence)" in ranking(plain, companion)[-1]


def test_the_picture_made_from_raw_data_is_the_one_to_be_read() -> None:
    raw = radiograph(1, PresentationIntentType="FOR PROCESSING", **CLOCK)
    shown = radiograph(2, SourceImageSequence=[source_image(raw.SOPInstanceUID)], **CLOCK)
    assert taken(raw, shown) is shown


def test_two_that_name_each_other_are_both_left_out() -> None:
    one, other = (
        radiograph(n, SourceImageSequence=[source_image(f"2.25.1.{3 - n}.1")]) for n in (1, 2)
    )
    assert taken(one, other) is None


def test_two_pictures_of_one_exposure_that_nothing_tells_apart_are_not_suitable() -> None:
    two = [
        radiograph(
            n, IrradiationEventUID="2.25.77", ContentDate="20261123", ContentTime=f"0{n}0000"
        )
        for n in (1, 2)
    ]
    assert taken(*two) is None
    reason = routed(two, CXR).refusals[0].reason
    assert "two pictures of one exposure (IrradiationEventUID)" in reason
    assert "2.25.1.1.1" in reason
    assert "2.25.1.2.1" in reason


def test_what_a_rejection_note_names_is_left_out_whatever_the_rules_say() -> None:
    good, bad = radiograph(1, **CLOCK), radiograph(2, **LATER)
    both = replace(study(good, bad), rejected=frozenset({bad.SOPInstanceUID}))
    routing = route(both, rules(CXR), now=NOW)
    assert routing.jobs[0].inputs["frontal"] == (good,)
    assert routing.verdicts[0].deciding == (
        "1 of 2 Instances left out: a Key Object Selection of the Study rejects them"
    )
    alone = replace(study(bad), rejected=frozenset({bad.SOPInstanceUID}))
    nothing = route(alone, rules(CXR), now=NOW)
    assert not nothing.jobs
    assert "a Key Object Selection of the Study rejects them" in nothing.reason


def test_a_companion_is_known_by_a_picture_that_the_rule_itself_does_not_hold_for() -> None:
    text = CXR.replace("{Modality: [CR, DX]}", "{text: [PORTABLE]}")
    plain = radiograph(1, **CLOCK)
    companion = radiograph(2, SeriesDescription="portable enhanced", **CLOCK)
    routing = routed([plain, companion], text)
    assert not routing.jobs
    assert "Instance 2.25.1.1.1 of the same exposure" in routing.refusals[0].reason


def test_companions_of_a_lateral_are_left_out_too() -> None:
    frontal, lateral = radiograph(1), radiograph(2, ViewPosition="LL", **CLOCK)
    companion = radiograph(3, ViewPosition="LL", SeriesDescription="bone suppressed", **LATER)
    (job,) = routed([frontal, lateral, companion], CXR).jobs
    assert job.inputs["lateral"] == (lateral,)


def test_free_text_of_people_is_never_repeated() -> None:
    text = explain_text(routed([radiograph(ImageComments="DOE JANE rejected by Smith")], CXR))
    assert "ImageComments has REJECTED" in text
    assert "DOE" not in text
    assert "Smith" not in text
