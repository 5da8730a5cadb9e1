"""What a model said is what the report says: no more, and never more certain."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_ai.encoding import ENCODERS
from pacs_ai.results import (
    Assertion,
    Box,
    Finding,
    Measurement,
    NothingFound,
    Outcome,
    Result,
    Segmentation,
)
from pacs_ai.study import Instance, read_instance
from tests.unit.encoding import sources as make
from tests.unit.pixels.made import SHARED

PRESENT, ABSENT, UNDETERMINED = "52101004", "272519000", "373068000"


@pytest.fixture
def film(tmp_path: Path) -> Instance:
    return make.radiograph(tmp_path)


def report(
    film: Instance, *results: Result, outcome: Outcome | None = None, **parameters: object
) -> Dataset:
    entry = make.entry(
        *results,
        model=make.REPORTER,
        kind="cxrreport",
        sources=[film.SOPInstanceUID],
        outcome=outcome,
        parameters=parameters,
    )
    (dataset,) = ENCODERS["report"](make.encoding(make.study([film]), entry))
    return pydicom.dcmread(BytesIO(make.to_bytes(dataset)))


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def groups(dataset: Dataset) -> list[Dataset]:
    return [
        one for one in walk(dataset) if "ConceptNameCodeSequence" in one and name(one) == "125007"
    ]


def values(group: Dataset, kind: str) -> dict[str, str]:
    return {
        name(one): str(one.ConceptCodeSequence[0].CodeValue)
        for one in group.ContentSequence
        if one.ValueType == kind
    }


def texts(dataset: Dataset) -> list[str]:
    return [str(one.TextValue) for one in walk(dataset) if one.get("ValueType") == "TEXT"]


def region(group: Dataset) -> list[float]:
    (found,) = [one for one in group.ContentSequence if one.ValueType == "SCOORD"]
    assert found.GraphicType == "POLYLINE"
    return [float(value) for value in found.GraphicData]


def finding(film: Instance, label: str, assertion: Assertion, **more: object) -> Finding:
    return Finding(label, assertion, (film.SOPInstanceUID,), **more)  # type: ignore[arg-type]  # test


def test_a_box_is_five_closed_points_of_stored_columns_and_rows(film: Instance) -> None:
    box = Box(film.SOPInstanceUID, 7, 11, 8, 12)
    opacity = finding(
        film, "lung opacity", Assertion.PRESENT, boxes=(box,), side="right", score=0.734
    )
    (group,) = groups(report(film, opacity))
    assert region(group) == [7, 11, 8, 11, 8, 12, 7, 12, 7, 11]
    assert values(group, "CODE")["121071"] == "112001"
    assert values(group, "CODE")["112001"] == PRESENT
    (number,) = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    (measured,) = number.MeasuredValueSequence
    assert float(measured.NumericValue) == 73.4
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"
    (site,) = [one for one in group.ContentSequence if name(one) == "363698007"]
    assert site.ConceptCodeSequence[0].CodeMeaning == "Lung"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Right"


def test_a_box_is_clipped_to_its_image(film: Instance) -> None:
    box = Box(film.SOPInstanceUID, -3, 5.25, 99, 61)
    (group,) = groups(report(film, finding(film, "mass", Assertion.PRESENT, boxes=(box,))))
    assert region(group) == [0, 5.25, 50, 5.25, 50, 60, 0, 60, 0, 5.25]


def test_every_box_is_its_own_group(film: Instance) -> None:
    boxes = tuple(Box(film.SOPInstanceUID, x, 1, x + 2, 3) for x in (1, 10))
    found = groups(report(film, finding(film, "lung nodule", Assertion.PRESENT, boxes=boxes)))
    assert [region(one)[0] for one in found] == [1, 10]


@pytest.mark.parametrize(
    ("assertion", "code"), [(Assertion.ABSENT, ABSENT), (Assertion.UNCERTAIN, UNDETERMINED)]
)
def test_what_is_not_present_is_never_a_finding(
    film: Instance, assertion: Assertion, code: str
) -> None:
    (group,) = groups(report(film, finding(film, "pneumothorax", assertion)))
    assert values(group, "CODE")["36118008"] == code
    assert "121071" not in values(group, "CODE")


def test_what_is_historical_is_text_and_not_a_presence(film: Instance) -> None:
    dataset = report(film, finding(film, "pneumonia", Assertion.HISTORICAL))
    assert "Historical: pneumonia" in texts(dataset)
    assert "233604007" not in values(groups(dataset)[0], "CODE")


def test_an_absence_of_one_side_is_not_an_absence_of_both(film: Instance) -> None:
    dataset = report(film, finding(film, "pleural effusion", Assertion.ABSENT, side="left"))
    assert "Absent: pleural effusion, left" in texts(dataset)
    assert "60046008" not in values(groups(dataset)[0], "CODE")


def test_an_absence_that_the_same_answer_contradicts_is_only_text(film: Instance) -> None:
    dataset = report(
        film,
        finding(film, "consolidation", Assertion.PRESENT),
        finding(film, "consolidation", Assertion.ABSENT),
    )
    codes = [values(group, "CODE").get("95436008") for group in groups(dataset)]
    assert codes == [PRESENT, None]
    assert "Absent: consolidation" in texts(dataset)


def test_a_finding_without_a_box_says_that_it_is_not_localised(film: Instance) -> None:
    (group,) = groups(report(film, finding(film, "emphysema", Assertion.PRESENT)))
    assert region(group) == [0, 0, 50, 0, 50, 60, 0, 60, 0, 0]
    assert "emphysema 1, not localised" in texts(group)


def test_a_contradiction_of_the_header_is_a_finding_with_what_is_held_against_what(
    film: Instance,
) -> None:
    sentence = "ViewPosition is LL, and the pixels are like frontal, not like lateral"
    against = finding(
        film, "view contradicts header", Assertion.PRESENT, score=0.95, sentence=sentence
    )
    dataset = report(film, against)
    assert values(groups(dataset)[0], "CODE")["VIEWCONTRA"] == PRESENT
    assert sentence in texts(dataset)


def test_nothing_found_is_not_a_normal_result(film: Instance) -> None:
    absent = finding(film, "pneumothorax", Assertion.ABSENT)
    dataset = report(film, outcome=NothingFound((absent,)))
    said = "No finding flagged by CXRReportGen 7; not a normal result"
    assert said in texts(dataset)
    assert values(groups(dataset)[0], "CODE")["36118008"] == ABSENT


def test_beside_an_uncertain_finding_nothing_is_flagged_as_present(film: Instance) -> None:
    unsure = finding(film, "lung nodule", Assertion.UNCERTAIN)
    said = texts(report(film, outcome=NothingFound((unsure,))))
    assert "No finding flagged as present by CXRReportGen 7; not a normal result" in said
    assert not any("finding flagged by" in one for one in said)


def test_a_measurement_has_unit_method_and_region(film: Instance) -> None:
    ratio = Measurement(
        "cardiothoracic ratio", 0.5555555, "1", (film.SOPInstanceUID,), "heart over thorax"
    )
    dataset = report(film, ratio)
    (group,) = groups(dataset)
    (number,) = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    assert name(number) == "CTR"
    assert float(number.MeasuredValueSequence[0].NumericValue) == 0.556
    assert "Method: heart over thorax" in texts(dataset)
    assert len(region(group)) == 10


def test_every_group_has_its_own_tracking_uid_and_its_algorithm(film: Instance) -> None:
    dataset = report(
        film,
        finding(film, "emphysema", Assertion.PRESENT),
        finding(film, "emphysema", Assertion.PRESENT),
        finding(film, "mass", Assertion.ABSENT),
        Measurement("cardiothoracic ratio", 0.5, "1", (film.SOPInstanceUID,), "m"),
    )
    found = groups(dataset)
    uids = [
        str(one.UID) for group in found for one in group.ContentSequence if name(one) == "112040"
    ]
    assert len(uids) == len(set(uids)) == len(found) == 4
    for group in found:
        named = {
            name(one): one.TextValue for one in group.ContentSequence if one.ValueType == "TEXT"
        }
        assert (named["111001"], named["111003"]) == ("CXRReportGen", "7")


def test_notes_of_the_rule_stand_in_the_report(film: Instance) -> None:
    dataset = report(
        film, finding(film, "mass", Assertion.ABSENT), notes=["lines and tubes not assessed"]
    )
    assert "lines and tubes not assessed" in texts(dataset)


def test_nobody_verified_it(film: Instance) -> None:
    dataset = report(film, finding(film, "mass", Assertion.ABSENT))
    assert dataset.VerificationFlag == "UNVERIFIED"
    assert dataset.PreliminaryFlag == "PRELIMINARY"
    assert dataset.CompletionFlag == "COMPLETE"
    assert "VerifyingObserverSequence" not in dataset


def test_evidence_is_exactly_what_the_tree_refers_to(tmp_path: Path) -> None:
    films = [make.radiograph(tmp_path, number=number) for number in (1, 2)]
    uids = [one.SOPInstanceUID for one in films]
    entry = make.entry(
        Finding("mass", Assertion.PRESENT, tuple(uids)), kind="cxrreport", sources=uids
    )
    (dataset,) = ENCODERS["report"](make.encoding(make.study(films), entry))
    assert evidence(dataset) == referenced(dataset) == set(uids)


def evidence(dataset: Dataset) -> set[str]:
    return {
        str(one.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }


def referenced(dataset: Dataset) -> set[str]:
    return {
        str(one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for one in walk(dataset)
        if one.get("ValueType") == "IMAGE"
    }


def reported(dataset: Dataset) -> str:
    (one,) = [item for item in dataset.ContentSequence if name(item) == "121058"]
    return str(one.ConceptCodeSequence[0].CodeValue)


def test_the_procedure_is_the_source_s_own(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "XRC", "99HIS", "Chest 2 views"
    film = make.radiograph(tmp_path, ProcedureCodeSequence=[code])
    assert reported(report(film, finding(film, "mass", Assertion.ABSENT))) == "XRC"


def test_a_knee_is_not_called_a_chest(tmp_path: Path) -> None:
    film = make.radiograph(tmp_path, BodyPartExamined="KNEE")
    entry = make.entry(finding(film, "fracture", Assertion.ABSENT), sources=[film.SOPInstanceUID])
    (dataset,) = ENCODERS["report"](make.encoding(make.study([film]), entry))
    assert reported(dataset) == "43468-8"
    assert reported(report(film, finding(film, "mass", Assertion.ABSENT))) == "399208008"


def test_the_request_is_named_by_its_accession(film: Instance) -> None:
    dataset = report(film, finding(film, "mass", Assertion.ABSENT))
    (request,) = dataset.ReferencedRequestSequence
    assert request.AccessionNumber == "A1"
    assert request.StudyInstanceUID == film.header.StudyInstanceUID


def test_a_volume_s_segment_is_measured_and_tracked_as_in_the_segmentation(tmp_path: Path) -> None:
    scan = make.volume(tmp_path, shape=(6, 20, 30), spacing=(2.5, 0.8, 0.7))
    uids = tuple(one.SOPInstanceUID for one in scan)
    mask = np.zeros((6, 20, 30), np.bool_)
    mask[1:5, 2:12, 3:28] = True
    entry = make.entry(Segmentation("left lung", mask, uids, "p"), kind="parse3d", sources=uids)
    work = make.encoding(make.study(scan[::-1]), entry)
    (dataset,) = ENCODERS["report"](work)
    (segmentation,) = ENCODERS["segmentation"](work)
    (group,) = groups(dataset)
    (number,) = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    assert float(number.MeasuredValueSequence[0].NumericValue) == pytest.approx(
        4 * 10 * 25 * 2.5 * 0.8 * 0.7 / 1000
    )
    (tracked,) = [one.UID for one in group.ContentSequence if name(one) == "112040"]
    assert tracked == segmentation.SegmentSequence[0].TrackingUID
    (segment,) = [one for one in group.ContentSequence if name(one) == "121191"]
    reference = segment.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    assert reference.ReferencedSegmentNumber == 1
    assert evidence(dataset) == {*uids, segmentation.SOPInstanceUID}
    assert referenced(dataset) == {*uids, segmentation.SOPInstanceUID}


def test_a_volume_without_even_spacing_is_not_measured(tmp_path: Path) -> None:
    scan = [one for index, one in enumerate(make.volume(tmp_path)) if index != 3]
    uids = tuple(one.SOPInstanceUID for one in scan)
    mask = Segmentation("heart", make.square((5, 20, 30)), uids, "p")
    entry = make.entry(mask, kind="parse3d", sources=uids)
    (dataset,) = ENCODERS["report"](make.encoding(make.study(scan), entry))
    assert not [one for one in walk(dataset) if one.get("ValueType") == "NUM"]


def test_a_mask_alone_on_a_radiograph_makes_no_report(film: Instance) -> None:
    mask = Segmentation("heart", make.square((60, 50)), (film.SOPInstanceUID,), "p")
    entry = make.entry(mask, sources=[film.SOPInstanceUID])
    assert ENCODERS["report"](make.encoding(make.study([film]), entry)) == ()


@pytest.mark.parametrize(
    ("parameters", "frames"),
    [
        ({"frame": 3}, 3),
        ({"frame": "all"}, None),
        ({"frames": [4, 5, 6]}, [4, 5, 6]),
        ({}, None),
    ],
    ids=["one", "all", "of a volume", "unsaid"],
)
def test_a_region_names_the_frame_that_was_looked_at(
    parameters: dict[str, object], frames: object
) -> None:
    cine = read_instance(SHARED / "us/us-34frame-ybr422-jpeg.dcm", digest="d")
    uid = cine.SOPInstanceUID
    results = [
        finding(cine, "mass", Assertion.PRESENT),
        finding(cine, "lung nodule", Assertion.UNCERTAIN, boxes=(Box(uid, 7, 11, 8, 12),)),
        finding(cine, "pneumothorax", Assertion.ABSENT),
        Measurement("cardiothoracic ratio", 0.5, "1", (uid,), "heart over thorax"),
    ]
    regions = images_of_regions(report(cine, *results, **parameters))
    assert len(regions) == 4
    assert {one.ReferencedSOPInstanceUID for one in regions} == {uid}
    assert [one.get("ReferencedFrameNumber") for one in regions] == [frames] * 4


def test_a_region_on_a_single_image_names_no_frame(film: Instance) -> None:
    dataset = report(film, finding(film, "mass", Assertion.PRESENT), frame=1)
    (image,) = images_of_regions(dataset)
    assert "ReferencedFrameNumber" not in image


def images_of_regions(dataset: Dataset) -> list[Dataset]:
    """Return what the regions of a report refer to, in their order."""
    return [
        child.ReferencedSOPSequence[0]
        for one in walk(dataset)
        if one.get("ValueType") == "SCOORD"
        for child in one.ContentSequence
    ]
