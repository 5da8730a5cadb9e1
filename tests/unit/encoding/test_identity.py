"""Patient and Study come from the source's header and from nowhere else."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacs_ai.encoding import ENCODERS, Encoding
from pacs_ai.encoding.identity import TYPE_2, identity_of, light_source, zone_of
from pacs_ai.errors import EncodingError
from pacs_ai.results import Narrative, Segmentation, Sentence
from pacs_ai.study import Instance, read_instance
from tests.unit.encoding import sources as make

DATA = Path(__file__).parents[4] / "shared" / "data"
CHARSETS = ["chrGB2312", "chrH32", "chrKoreanMulti", "Lena-latin2", "Lena-utf8", "Lena-shift-jis"]
COPIED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate")


def shared(path: str) -> Instance:
    return read_instance(DATA / path, digest="0" * 64)


def draft(instance: Instance, text: str = "No effusion.") -> Encoding:
    uid = instance.SOPInstanceUID
    narrative = Narrative((Sentence(text),), (uid,))
    entry = make.entry(narrative, model=make.REPORTER, kind="cxrreport", sources=[uid])
    return make.encoding(make.study([instance]), entry)


def written(work: Encoding, kind: str = "narrative") -> Dataset:
    (dataset,) = ENCODERS[kind](work)
    return pydicom.dcmread(BytesIO(make.to_bytes(dataset)))


def raw(dataset: Dataset, keyword: str) -> bytes:
    element = dataset.get_item(keyword)
    return b"" if element is None else (element.value or b"").rstrip(b" \0")


@pytest.mark.parametrize("name", CHARSETS)
def test_names_in_every_character_set_are_copied_byte_for_byte(name: str) -> None:
    path = f"charsets/{name}.dcm"
    result = written(draft(shared(path)))
    source = pydicom.dcmread(DATA / path, stop_before_pixels=True)
    assert raw(source, "PatientName")
    for keyword in COPIED:
        if keyword in source:
            assert raw(result, keyword) == raw(source, keyword)
    assert result.SpecificCharacterSet == source.SpecificCharacterSet


def test_a_name_without_a_stated_character_set_is_copied_byte_for_byte(tmp_path: Path) -> None:
    path = make.radiograph(tmp_path, PatientName="Xx^Yy").path
    path.write_bytes(path.read_bytes().replace(b"Xx^Yy", b"\xb3\xd3\xa9\xc4^"))
    result = written(draft(read_instance(path, digest="0" * 64)))
    assert raw(result, "PatientName") == b"\xb3\xd3\xa9\xc4^"
    assert "SpecificCharacterSet" not in result


@pytest.mark.parametrize("name", ["chrH32", "chrKoreanMulti", "Lena-latin2", "Lena-utf8"])
def test_a_name_keeps_its_letters_when_our_text_needs_utf_8(name: str) -> None:
    path = f"charsets/{name}.dcm"
    result = written(draft(shared(path), "Keine Ergüsse – kein Infiltrat."))
    source = pydicom.dcmread(DATA / path, stop_before_pixels=True)
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert str(result.PatientName) == str(source.PatientName)


def test_values_that_are_not_valid_are_left_out_and_named() -> None:
    canon = shared("cxr/dx-pa-mono1-12bit-j2k-canon.dcm")
    result = written(draft(canon))
    assert result.PatientID == "2010101610-1"
    for keyword in ("PatientBirthDate", "AccessionNumber"):
        assert keyword in result
        assert not result[keyword].value
        said = result.ContributingEquipmentSequence[0].ContributionDescription
        assert f"{keyword} of the source is not valid and was left out." in said
    assert "ReferencedRequestSequence" not in result


def test_a_note_never_holds_the_value_it_is_about() -> None:
    canon = shared("cxr/dx-pa-mono1-12bit-j2k-canon.dcm")
    notes = " ".join(identity_of(canon).notes)
    assert "d14a028c" not in notes


@pytest.mark.parametrize("name", ["nih-test1-dx", "cr-pa-mono1-10bit-fuji"])
def test_what_the_source_lacks_is_empty_and_not_made_up(name: str) -> None:
    source = shared(f"cxr/{name}.dcm")
    result = written(draft(source))
    for keyword in TYPE_2:
        assert keyword in result
        if keyword not in source.header:
            assert not result[keyword].value


def test_the_issuer_of_a_patient_id_goes_with_it(tmp_path: Path) -> None:
    result = written(draft(make.radiograph(tmp_path)))
    assert (result.PatientID, result.IssuerOfPatientID) == ("P1", "Clinic")


def test_a_source_without_study_is_refused(tmp_path: Path) -> None:
    instance = make.radiograph(tmp_path, StudyInstanceUID="")
    with pytest.raises(EncodingError, match="StudyInstanceUID is missing"):
        identity_of(instance)


def test_a_name_of_one_part_warns_nobody(tmp_path: Path) -> None:
    # highdicom would put the name into a warning; warnings are errors in these tests.
    instance = make.radiograph(tmp_path, PatientName="Anonymized")
    uid = (instance.SOPInstanceUID,)
    mask = make.square((60, 50))
    work = make.encoding(
        make.study([instance]), make.entry(Segmentation("heart", mask, uid, "p"), sources=uid)
    )
    assert str(written(work, "segmentation").PatientName) == "Anonymized"


def test_what_a_library_sees_has_no_patient(tmp_path: Path) -> None:
    source = light_source(make.radiograph(tmp_path))
    assert not any(source[keyword].value for keyword in TYPE_2)


def test_a_missing_size_is_named_with_its_instance(tmp_path: Path) -> None:
    instance = make.radiograph(tmp_path)
    del instance.header.Rows
    with pytest.raises(EncodingError, match=f"Rows is missing .* {instance.SOPInstanceUID}"):
        light_source(instance)


def test_dates_are_written_in_the_zone_of_the_source(tmp_path: Path) -> None:
    # One offset speaks for all times of an object, so the copied Study Time must stay true.
    instance = make.radiograph(tmp_path, TimezoneOffsetFromUTC="-0530")
    result = written(draft(instance))
    assert result.TimezoneOffsetFromUTC == "-0530"
    assert (result.ContentDate, result.ContentTime) == ("20261123", "083405")
    assert result.StudyTime == "140000"


def test_without_a_zone_in_the_source_the_site_s_is_taken(tmp_path: Path) -> None:
    header = make.radiograph(tmp_path).header
    assert zone_of(header, make.WHEN) == make.WHEN
    result = written(draft(make.radiograph(tmp_path)))
    assert (result.TimezoneOffsetFromUTC, result.ContentTime) == ("+0100", "150405")
