from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from pacs_ai import assembly
from pacs_ai.assembly import (
    Complete,
    Current,
    Difference,
    NotCurrent,
    Waiting,
    complete,
    content_key,
    currency,
)
from pacs_ai.pixels.decode import same_frames
from pacs_ai.study import read_instance

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
QUIET = timedelta(seconds=60)


def test_a_study_waits_until_its_quiet_period_is_over() -> None:
    assert complete(NOW, NOW + QUIET / 2, QUIET, asked_at=NOW) == Waiting(NOW + QUIET)


def test_a_clock_that_was_set_back_holds_no_study_up() -> None:
    ahead = NOW + timedelta(hours=8)
    decided = complete(ahead, NOW, QUIET, asked_at=NOW - QUIET)
    assert isinstance(decided, Complete)
    assert "the clock was set back" in decided.evidence
    little = timedelta(seconds=2)  # as a time service steps
    assert complete(NOW + little, NOW, QUIET, asked_at=NOW) == Waiting(NOW + little + QUIET)


def test_quiet_is_waited_for_once_more_where_the_clock_was_set_back() -> None:
    ahead = NOW + timedelta(hours=8)
    assert complete(ahead, NOW, QUIET, asked_at=ahead) == Waiting(NOW + QUIET)
    assert complete(ahead, NOW, QUIET, asked_at=NOW - QUIET / 2) == Waiting(NOW + QUIET)


def test_a_quiet_study_is_complete_and_says_by_which_evidence() -> None:
    decided = complete(NOW, NOW + QUIET, QUIET, asked_at=NOW)
    assert isinstance(decided, Complete)
    assert decided.evidence == "no Instance arrived for 60 s after 2026-11-23 12:00:00 UTC"


def test_a_content_key_does_not_depend_on_the_order() -> None:
    one, two = ("1.2.3", "aa"), ("1.2.4", "bb")
    assert content_key([one, two]) == content_key([two, one, one])
    assert content_key([one]) != content_key([("1.2.3", "ab")])
    assert content_key([one]) != content_key([one, two])


# ---------------------------------------------------------------------- current


def _decided(max_age: timedelta | None = timedelta(hours=48), **elements: str) -> Any:
    header = Dataset()
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    return currency(header, NOW, max_age=max_age, time_zone="Europe/Berlin")


@pytest.mark.parametrize(
    "elements",
    [
        {"StudyDate": "20261123", "StudyTime": "110000"},
        {"StudyDate": "20261121", "StudyTime": "130001"},
        {"StudyDate": "20261121"},
        {"StudyDate": "", "SeriesDate": "20261123", "SeriesTime": "0900"},
        {"StudyDate": "20261124", "StudyTime": "1259"},
        {"StudyDate": "20261123", "StudyTime": "235960"},
    ],
)
def test_a_study_of_these_days_is_current(elements: dict[str, str]) -> None:
    assert _decided(**elements) == Current()


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"StudyDate": "20261121", "StudyTime": "125959"}, "StudyDate lies more than 48 h"),
        ({"StudyDate": "20070404", "StudyTime": "185824"}, "defaults.max_age"),
        ({"StudyDate": "20261120"}, "StudyDate lies more than 48 h"),
        ({"StudyDate": "20261125", "StudyTime": "1400"}, "in the future"),
        ({"SeriesDate": "20150131", "SeriesTime": "102105"}, "SeriesDate lies more than"),
        ({"AcquisitionDate": "20261123"}, "undated: StudyDate and SeriesDate are missing"),
        ({"StudyDate": "yesterday"}, "undated: StudyDate is not a date"),
        ({"StudyDate": "20261350"}, "undated: StudyDate is not a date"),
    ],
)
def test_an_old_undated_or_future_study_is_not_current(
    elements: dict[str, str], reason: str
) -> None:
    decided = _decided(**elements)
    assert isinstance(decided, NotCurrent)
    assert reason in decided.reason


def test_the_zone_of_the_header_goes_before_the_zone_of_the_site() -> None:
    moment = {"StudyDate": "20261121", "StudyTime": "120000"}
    # Noon in Berlin is more than 48 h ago; noon two hours west of Greenwich is not.
    assert isinstance(_decided(**moment), NotCurrent)
    assert _decided(**moment, TimezoneOffsetFromUTC="-0200") == Current()


def test_every_study_is_current_where_the_site_says_so() -> None:
    assert _decided(None, StudyDate="18950101") == Current()


# ---------------------------------------------------------------------- the same UID again


def _image(**elements: Any) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = "2.25.1"
    made.PatientName = "Müller^Test"
    made.PatientID = "1"
    made.PatientBirthDate = "19650101"
    made.PixelSpacing = ["0.50", "0.50"]
    made.ImagePositionPatient = ["0", "0", "1"]
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "2.25.9"
    made.ReferencedImageSequence = [item]
    made.add_new(0x00091001, "LO", "private")
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = 64, 80
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = np.arange(5120, dtype="<u2").tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def _read(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    stream = BytesIO()
    dcmwrite(stream, made, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def _compressed(made: Dataset, syntax: str) -> Dataset:
    made = _read(made)
    made.compress(syntax, generate_instance_uid=False)
    return made


def compare(kept: Dataset, arrived: Dataset) -> Difference:
    def decoded() -> bool:
        with TemporaryDirectory() as folder:
            written = [Path(folder) / name for name in ("kept", "arrived")]
            for path, dataset in zip(written, (kept, arrived), strict=True):
                dcmwrite(path, dataset)
            return same_frames(*(read_instance(path, digest="") for path in written))

    return assembly.compare(kept, arrived, same_frames=decoded)


def test_another_encoding_of_the_same_instance_is_a_duplicate() -> None:
    kept = _read(_image())
    assert compare(kept, _read(_image())) is Difference.SAME
    assert compare(kept, _read(_image(), ImplicitVRLittleEndian)) is Difference.SAME
    assert compare(kept, _compressed(_image(), RLELossless)) is Difference.SAME
    assert compare(_compressed(_image(), JPEG2000Lossless), kept) is Difference.SAME


def test_another_byte_order_is_a_duplicate() -> None:
    swapped = _image(PixelData=np.arange(5120, dtype=">u2").tobytes())
    assert compare(_read(_image()), _read(swapped, ExplicitVRBigEndian)) is Difference.SAME


def test_another_character_set_is_a_duplicate() -> None:
    assert compare(_read(_image()), _read(_image(SpecificCharacterSet="ISO_IR 192"))) is (
        Difference.SAME
    )


def test_the_same_bytes_in_another_character_set_are_not_the_same() -> None:
    stream = BytesIO()
    dcmwrite(stream, _read(_image()))
    cyrillic = BytesIO(stream.getvalue().replace(b"ISO_IR 100", b"ISO_IR 144"))
    assert compare(_read(_image()), dcmread(cyrillic)) is Difference.ATTRIBUTES


def test_padding_group_lengths_and_empty_elements_do_not_count() -> None:
    padded = _image(StudyDescription="")
    padded.add_new(0x00100000, "UL", 20)
    padded.DataSetTrailingPadding = b"\0\0\0\0"
    assert compare(_read(_image()), _read(padded)) is Difference.SAME


def test_numbers_written_otherwise_are_the_same() -> None:
    assert compare(_read(_image()), _read(_image(PixelSpacing=["0.5", ".5"]))) is Difference.SAME


@pytest.mark.parametrize(
    "elements",
    [
        {"StudyDescription": "Chest"},
        {"PatientName": "Mueller^Test"},
        {"ReferencedImageSequence": []},
        {"ViewPosition": "AP"},
    ],
)
def test_other_attributes_make_a_new_version(elements: dict[str, Any]) -> None:
    assert compare(_read(_image()), _read(_image(**elements))) is Difference.ATTRIBUTES


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientID": "2"},
        {"PatientID": None},
        {"IssuerOfPatientID": "elsewhere"},
        {"PatientBirthDate": "19650102"},
        {"PixelSpacing": ["0.6", "0.6"]},
        {"ImagePositionPatient": ["0", "0", "2"]},
        {"FrameOfReferenceUID": "2.25.7"},
        {"ImageLaterality": "L"},
        {"StudyInstanceUID": "2.25.8"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelData": np.arange(5120, dtype="<u2")[::-1].tobytes()},
        {"PixelData": None},
    ],
)
def test_other_pixels_patient_or_geometry_are_a_conflict(elements: dict[str, Any]) -> None:
    assert compare(_read(_image()), _read(_image(**elements))) is Difference.CONFLICT


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"PatientID": "2", "PatientName": "Schmidt^Test"}, ["PatientID"]),
        ({"PixelSpacing": ["0.6", "0.6"], "PatientSex": "O"}, ["PatientSex", "PixelSpacing"]),
        ({"PatientName": "Mueller^Test", "PixelData": bytes(5120 * 2)}, ["PixelData"]),
        ({"StudyDescription": "Chest", "PixelData": None}, ["PixelData"]),
    ],
)
def test_a_conflict_is_told_by_the_elements_that_decide_it(
    elements: dict[str, Any], named: list[str]
) -> None:
    kept, arrived = _image(PatientSex="F"), _image(**{"PatientSex": "F"} | elements)
    assert assembly.contradicting(_read(kept), _read(arrived)) == named


def test_another_name_without_a_patient_id_is_another_patient() -> None:
    kept = _read(_image(PatientID=""))
    other = _read(_image(PatientID="", PatientName="Schmidt^Test"))
    assert compare(kept, other) is Difference.CONFLICT


def test_what_cannot_be_decoded_is_a_conflict() -> None:
    broken = _compressed(_image(), JPEG2000Lossless)
    broken.PixelData = broken.PixelData[:40] + bytes(len(broken.PixelData) - 40)
    assert compare(_read(_image()), broken) is Difference.CONFLICT


def test_what_is_too_large_to_decode_is_a_conflict() -> None:
    huge = _image(Rows=65535, Columns=65535)
    other = _image(Rows=65535, Columns=65535, PixelData=bytes(70))
    assert compare(_read(huge), _read(other)) is Difference.CONFLICT


def test_a_real_image_in_two_encodings_is_the_same() -> None:
    native = dcmread(get_testdata_file("CT_small.dcm"))
    packed = dcmread(get_testdata_file("CT_small.dcm"))
    packed.compress(RLELossless, generate_instance_uid=False)
    assert compare(native, packed) is Difference.SAME


def test_text_inside_sequences_is_compared_by_what_it_says() -> None:
    def nested(character_set: str, text: str) -> Dataset:
        item = Dataset()
        item.CodeMeaning = text
        return _read(_image(SpecificCharacterSet=character_set, ViewCodeSequence=[item]))

    kept = nested("ISO_IR 100", "schräg")
    assert compare(kept, nested("ISO_IR 192", "schräg")) is Difference.SAME
    assert compare(kept, nested("ISO_IR 192", "schrag")) is Difference.ATTRIBUTES
