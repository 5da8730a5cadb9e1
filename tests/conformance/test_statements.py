"""The numbered statements of the results brief that no validator tests, over every object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs_ai.encoding.identity import TYPE_2, valid
from pacs_ai.encoding.scenes import results_of
from pacs_ai.results import Finding, Measurement
from tests.conformance.conftest import Made, run
from tests.unit.test_terms import verhoeff


def read(one: Made) -> Dataset:
    return pydicom.dcmread(one.path)


def items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from items(item)


def reports(made: dict[str, Made]) -> list[Made]:
    return [one for one in made.values() if one.kind == "report"]


def segmentations(made: dict[str, Made]) -> list[Made]:
    return [one for one in made.values() if one.kind == "segmentation"]


def named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def groups(dataset: Dataset) -> list[Dataset]:
    found = [one for one in items(dataset) if "ConceptNameCodeSequence" in one]
    return [one for one in found if named(one) == "125007"]


def test_uids_are_valid_and_name_one_thing(made: dict[str, Made]) -> None:  # 1, 2, 4
    read_all = [read(one) for one in made.values()]
    for dataset in read_all:
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        for item in items(dataset):
            uids = [one.value for one in item if one.VR == "UI" and one.VM == 1 and one.value]
            assert all(UID(uid).is_valid for uid in uids)
    by_work: dict[int, list[Dataset]] = {}
    for one, dataset in zip(made.values(), read_all, strict=True):
        by_work.setdefault(id(one.work), []).append(dataset)
    for datasets in by_work.values():
        assert len({one.SeriesInstanceUID for one in datasets}) == len(datasets)
        assert len({one.SOPInstanceUID for one in datasets}) == len(datasets)


def test_patient_and_study_are_the_source_s(made: dict[str, Made]) -> None:  # 3
    for one in made.values():
        dataset, instance = read(one), one.work.study.instances[0]
        source = pydicom.dcmread(instance.path, stop_before_pixels=True)
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        for keyword in (*TYPE_2, "IssuerOfPatientID"):
            element = dataset.get_item(keyword)
            value = (element.value or b"").rstrip(b" \0") if element is not None else b""
            original = source.get_item(keyword)
            if original is None or valid(instance.header, keyword) is None:
                assert value == b""
            else:
                assert value == (original.value or b"").rstrip(b" \0")


def test_every_code_is_whole_and_every_sct_code_checks(made: dict[str, Made]) -> None:  # 9, 11, 13
    for one in made.values():
        dataset = read(one)
        declared = {
            str(item.CodingSchemeDesignator)
            for item in dataset.get("CodingSchemeIdentificationSequence", ())
        }
        for item in items(dataset):
            if "CodeValue" in item:
                assert item.CodeValue
                assert 0 < len(item.CodeMeaning) <= 64
                if item.CodingSchemeDesignator == "SCT":
                    assert verhoeff(str(item.CodeValue))
                if str(item.CodingSchemeDesignator).startswith("99"):
                    assert item.CodingSchemeDesignator in declared


def test_there_is_no_private_element(made: dict[str, Made]) -> None:  # 12
    for one in made.values():
        assert not [e for item in items(read(one)) for e in item if e.tag.is_private]


def test_frames_items_and_pixels_agree(made: dict[str, Made]) -> None:  # 14, 16 to 19
    for one in segmentations(made):
        dataset = read(one)
        frames = int(dataset.NumberOfFrames)
        assert frames == len(dataset.PerFrameFunctionalGroupsSequence)
        bits = frames * dataset.Rows * dataset.Columns
        assert len(dataset.PixelData) == (bits + 15) // 16 * 2
        assert (dataset.SegmentationType, dataset.BitsAllocated) == ("BINARY", 1)
        numbers = [segment.SegmentNumber for segment in dataset.SegmentSequence]
        assert numbers == list(range(1, len(numbers) + 1))
        labels = {segment.SegmentLabel for segment in dataset.SegmentSequence}
        colours = {
            tuple(segment.RecommendedDisplayCIELabValue) for segment in dataset.SegmentSequence
        }
        assert len(labels) == len(colours) == len(numbers)
        referred = {
            int(item.ReferencedSegmentNumber)
            for item in items(dataset)
            if "ReferencedSegmentNumber" in item
        }
        assert referred == set(numbers)


def test_references_are_exactly_the_frames_sources(made: dict[str, Made]) -> None:  # 22 to 27
    for one in segmentations(made):
        dataset = read(one)
        used = {
            str(source.ReferencedSOPInstanceUID)
            for frame in dataset.PerFrameFunctionalGroupsSequence
            for derivation in frame.DerivationImageSequence
            for source in derivation.SourceImageSequence
        }
        listed = {
            str(item.ReferencedSOPInstanceUID)
            for series in dataset.ReferencedSeriesSequence
            for item in series.ReferencedInstanceSequence
        }
        assert listed == used
        source = one.work.study.instance(next(iter(used))).header
        assert dataset.get("FrameOfReferenceUID") == source.get("FrameOfReferenceUID")
        assert (dataset.Rows, dataset.Columns) == (source.Rows, source.Columns)


def test_tracking_uids_are_the_same_in_segmentation_and_report(made: dict[str, Made]) -> None:  # 32
    compared = 0
    for name, one in made.items():
        if name.startswith(("volume", "phantom thorax")) and one.kind == "segmentation":
            report = read(made[name.replace("segmentation", "report")])
            tracked = [
                str(child.UID)
                for group in groups(report)
                for child in group.ContentSequence
                if named(child) == "112040"
            ]
            assert tracked == [str(segment.TrackingUID) for segment in read(one).SegmentSequence]
            compared += 1
    assert compared


def test_reports_have_the_parts_that_readers_need(made: dict[str, Made]) -> None:  # 35 to 38, 40
    for one in reports(made):
        dataset = read(one)
        assert named(dataset) == "126000"
        assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        children = [named(child) for child in dataset.ContentSequence]
        for concept in ("121049", "121005", "121012", "121058", "111028", "126010"):
            assert concept in children
        assert (dataset.VerificationFlag, dataset.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
        library = next(child for child in dataset.ContentSequence if named(child) == "111028")
        shown = {
            str(item.ReferencedSOPInstanceUID)
            for item in items(library)
            if "ReferencedSOPInstanceUID" in item
        }
        assert shown >= set(one.work.entries[0].sources)


def test_evidence_is_what_the_tree_refers_to(made: dict[str, Made]) -> None:  # 39
    for one in made.values():
        if one.kind in ("report", "narrative"):
            dataset = read(one)
            evidence = {
                str(item.ReferencedSOPInstanceUID)
                for study in dataset.CurrentRequestedProcedureEvidenceSequence
                for item in items(study)
                if "ReferencedSOPInstanceUID" in item
            }
            tree = {
                str(item.ReferencedSOPInstanceUID)
                for child in dataset.ContentSequence
                for item in items(child)
                if "ReferencedSOPInstanceUID" in item
            }
            assert evidence == tree


def test_every_group_is_tracked_and_names_its_algorithm(made: dict[str, Made]) -> None:  # 41, 42
    for one in reports(made):
        found = groups(read(one))
        uids = []
        for group in found:
            children = {named(child): child for child in group.ContentSequence}
            assert children["111001"].TextValue
            assert children["111003"].TextValue
            assert children["112039"].TextValue
            uids.append(str(children["112040"].UID))
        assert len(set(uids)) == len(uids) == len(found) > 0


def test_every_region_is_closed_inside_its_image(made: dict[str, Made]) -> None:  # 44 to 46
    seen = 0
    for one in reports(made):
        for group in groups(read(one)):
            kinds = [child.ValueType for child in group.ContentSequence]
            assert "SCOORD" in kinds or "IMAGE" in kinds
            for region in group.ContentSequence:
                if region.ValueType == "SCOORD":
                    image = region.ContentSequence[0].ReferencedSOPSequence[0]
                    header = one.work.study.instance(image.ReferencedSOPInstanceUID).header
                    points = [float(value) for value in region.GraphicData]
                    assert len(points) == 10
                    assert points[:2] == points[-2:]
                    assert all(0 <= x <= header.Columns for x in points[::2])
                    assert all(0 <= y <= header.Rows for y in points[1::2])
                    seen += 1
    assert seen


@pytest.mark.parametrize("name", ["phantom thorax", "phantom chest"])
def test_dcmqi_reads_the_same_numbers(  # 49
    made: dict[str, Made], name: str, tmp_path: Path
) -> None:
    one = made[f"{name}-report-1"]
    target = tmp_path / "read.json"
    run("tid1500reader", "--inputDICOM", one.path, "--outputMetadata", target)
    measured = json.loads(target.read_text())["Measurements"]
    found = sorted(
        float(item["value"]) for group in measured for item in group.get("measurementItems", ())
    )
    written = sorted(
        float(item.NumericValue) for item in items(read(one)) if "NumericValue" in item
    )
    assert found == written
    assert len(found) >= 2


def test_nothing_that_was_said_is_left_out(made: dict[str, Made]) -> None:
    one = made["phantom chest-report-1"]
    said = [r for entry in one.work.entries for r in results_of(entry)]
    dataset = read(one)
    codes = {str(item.CodeValue) for item in items(dataset) if "CodeValue" in item}
    texts = " ".join(str(item.TextValue) for item in items(dataset) if "TextValue" in item)
    from pacs_ai.terms import term

    for result in said:
        if isinstance(result, Finding | Measurement):
            assert term(result.label).code.value in codes or f": {result.label}" in texts
