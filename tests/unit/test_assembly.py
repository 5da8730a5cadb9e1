from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from struct import pack, unpack
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
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
        ({"StudyDate": "99991231"}, "in the future"),
        ({"StudyDate": "00010101", "TimezoneOffsetFromUTC": "+1400"}, "StudyDate lies more than"),
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


@pytest.mark.parametrize("offset", ["+9900", "-2400", "+1401", "-1201", "+0160", "2"])
def test_what_is_no_zone_leaves_the_zone_of_the_site(offset: str) -> None:
    moment = {"StudyDate": "20261121", "StudyTime": "130001"}
    assert _decided(**moment, TimezoneOffsetFromUTC=offset) == Current()
    moment = {"StudyDate": "20261121", "StudyTime": "125959"}
    assert isinstance(_decided(**moment, TimezoneOffsetFromUTC=offset), NotCurrent)


def test_a_time_without_minutes_counts_as_its_whole_hour() -> None:
    nearly_two_days = timedelta(hours=47.5)  # since 13:30 in Berlin
    assert _decided(nearly_two_days, StudyDate="20261121", StudyTime="13") == Current()
    decided = _decided(nearly_two_days, StudyDate="20261121", StudyTime="130000")
    assert isinstance(decided, NotCurrent)


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


# ---------------------------------------------------------------------- however it is encoded

IN_GROUPS = "PerFrameFunctionalGroupsSequence"
IN_REQUEST = "RequestAttributesSequence"
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def _private(text: str = "hello", number: float = 1.5, inner: int = 20) -> Dataset:
    """Return elements as a maker writes them, with a sequence of its own."""
    made, item = Dataset(), Dataset()
    item.private_block(0x2001, "ACME 01", create=True).add_new(0x2D, "SS", inner)
    block = made.private_block(0x2001, "ACME 01", create=True)
    block.add_new(0x01, "FL", number)
    block.add_new(0x02, "LO", text)
    block.add_new(0x5F, "SQ", [item])
    return made


def _undefined(within: Dataset) -> None:
    for element in within:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _undefined(item)


def _holding(
    where: str, item: Dataset, syntax: str, *, lengths: str = "defined", **elements: Any
) -> Dataset:
    """Return an image, as it is read, with an item in a sequence; or at the top, where there is none."""
    made = _image(**elements)
    if where:
        setattr(made, where, [item])
    else:
        made.update(item)
    if syntax == ExplicitVRBigEndian:
        made.PixelData = np.arange(5120, dtype=">u2").tobytes()
    if lengths == "undefined":
        _undefined(made)
    return _read(made, syntax)


@pytest.mark.parametrize("where", ["", IN_REQUEST, IN_GROUPS])
@pytest.mark.parametrize("lengths", ["defined", "undefined"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_name_edit_beside_private_elements_holds_nothing(
    where: str, lengths: str, syntax: str
) -> None:
    kept = _holding(where, _private(), syntax, lengths=lengths)
    edited = _holding(where, _private(), syntax, lengths=lengths, PatientName="Other^Test")
    assert compare(kept, edited) is Difference.ATTRIBUTES


@pytest.mark.parametrize("where", ["", IN_REQUEST, IN_GROUPS])
@pytest.mark.parametrize("lengths", ["defined", "undefined"])
@pytest.mark.parametrize("kept", SYNTAXES)
@pytest.mark.parametrize("arrived", SYNTAXES)
def test_private_elements_in_another_encoding_are_the_same(
    where: str, lengths: str, kept: str, arrived: str
) -> None:
    one = _holding(where, _private(), kept)
    other = _holding(where, _private(), arrived, lengths=lengths)
    assert compare(one, other) is Difference.SAME


@pytest.mark.parametrize("changed", [{"text": "hullo"}, {"number": 1.25}, {"inner": 21}])
@pytest.mark.parametrize("kept", SYNTAXES)
@pytest.mark.parametrize("arrived", SYNTAXES)
def test_a_private_element_of_a_frame_that_changed_is_a_conflict(
    changed: dict[str, Any], kept: str, arrived: str
) -> None:
    one = _holding(IN_GROUPS, _private(), kept)
    assert compare(one, _holding(IN_GROUPS, _private(**changed), arrived)) is Difference.CONFLICT
    elsewhere = _holding("", _private(), kept), _holding("", _private(**changed), arrived)
    assert compare(*elsewhere) is Difference.ATTRIBUTES


def _spaced(spacing: str) -> Dataset:
    group, measures = _private(), Dataset()
    measures.PixelSpacing = [spacing, "0.5"]
    group.PixelMeasuresSequence = [measures]
    return group


@pytest.mark.parametrize("lengths", ["defined", "undefined"])
@pytest.mark.parametrize("kept", SYNTAXES)
@pytest.mark.parametrize("arrived", SYNTAXES)
def test_geometry_and_patient_that_changed_are_a_conflict_in_every_encoding(
    lengths: str, kept: str, arrived: str
) -> None:
    one = _holding(IN_GROUPS, _spaced("0.5"), kept, lengths=lengths)
    assert compare(one, _holding(IN_GROUPS, _spaced(".50"), arrived)) is Difference.SAME
    assert compare(one, _holding(IN_GROUPS, _spaced("0.6"), arrived)) is Difference.CONFLICT
    for other in ({"PatientID": "2"}, {"PatientBirthDate": "19650102"}, {"Rows": 80}):
        assert compare(one, _holding(IN_GROUPS, _spaced("0.5"), arrived, **other)) is (
            Difference.CONFLICT
        )


def _as_unknown(made: Dataset, keyword: str) -> Dataset:
    """Return an image with one element as a system sends it on that does not know its VR (PS3.5 6.2.2)."""
    tag = Tag(keyword)
    value = _read(made, ImplicitVRLittleEndian).get_item(tag).value
    made[tag] = RawDataElement(
        *(tag, "UN", len(value), value, 0), is_implicit_VR=False, is_little_endian=True
    )
    return _read(made)


def test_a_public_element_of_unknown_vr_is_read_as_what_it_is() -> None:
    def grouped(spacing: str) -> Dataset:
        return _image(SharedFunctionalGroupsSequence=[_spaced(spacing)])

    sent_on = _as_unknown(grouped("0.5"), "SharedFunctionalGroupsSequence")
    for syntax in SYNTAXES[:2]:
        assert compare(_read(grouped("0.5"), syntax), sent_on) is Difference.SAME
        assert compare(_read(grouped("0.6"), syntax), sent_on) is Difference.CONFLICT
    for keyword in ("PatientID", "PatientBirthDate", "PixelSpacing", "Rows"):
        assert compare(_read(_image()), _as_unknown(_image(), keyword)) is Difference.SAME
    other = _as_unknown(_image(PatientID="2"), "PatientID")
    assert compare(_read(_image()), other) is Difference.CONFLICT


def test_private_bytes_of_unknown_vr_are_compared_as_items_where_they_are_such() -> None:
    nested = Dataset()
    nested.private_block(0x2003, "ACME 02", create=True).add_new(0x01, "SQ", [_private()])
    kept = _holding(IN_GROUPS, nested, ImplicitVRLittleEndian)

    def inner_undefined(number: float) -> Dataset:
        group = Dataset()
        block = group.private_block(0x2003, "ACME 02", create=True)
        block.add_new(0x01, "SQ", [_private(number=number)])
        _undefined(group[0x20031001].value[0])
        return _holding(IN_GROUPS, group, ImplicitVRLittleEndian)

    assert compare(kept, inner_undefined(1.5)) is Difference.SAME
    assert compare(kept, inner_undefined(1.25)) is Difference.CONFLICT


def test_private_bytes_that_only_look_like_items_are_compared_as_bytes() -> None:
    def odd(tail: bytes) -> Dataset:
        group = Dataset()
        block = group.private_block(0x2003, "ACME 02", create=True)
        block.add_new(0x01, "UN", b"\xfe\xff\x00\xe0\x08\x00\x00\x00" + tail)
        return _holding(IN_GROUPS, group, ImplicitVRLittleEndian)

    assert compare(odd(b"\1\2\3\4"), odd(b"\1\2\3\4")) is Difference.SAME
    assert compare(odd(b"\1\2\3\4"), odd(b"\1\2\3\5")) is Difference.CONFLICT


def test_private_text_in_another_character_set_is_the_same() -> None:
    def written(character_set: str, text: str, syntax: str) -> Dataset:
        return _holding("", _private(text=text), syntax, SpecificCharacterSet=character_set)

    kept = written("ISO_IR 100", "Größe", ExplicitVRLittleEndian)
    for syntax in SYNTAXES:
        assert compare(kept, written("ISO_IR 192", "Größe", syntax)) is Difference.SAME
        assert compare(kept, written("ISO_IR 192", "Grosse", syntax)) is Difference.ATTRIBUTES


def test_the_character_set_of_an_item_does_not_count() -> None:
    def described(character_set: str) -> Dataset:
        item = Dataset()
        item.SpecificCharacterSet, item.FrameComments = character_set, "Größe"
        return _holding(IN_GROUPS, item, ExplicitVRLittleEndian)

    assert compare(described("ISO_IR 100"), described("ISO_IR 192")) is Difference.SAME


def test_an_element_that_no_dictionary_knows_is_compared_by_its_bytes() -> None:
    def newer(value: bytes, syntax: str, **elements: Any) -> Dataset:
        item = Dataset()
        item.add_new(0x00189FF1, "UN", value)
        return _holding(IN_GROUPS, item, syntax, lengths="undefined", **elements)

    kept = newer(b"ab", ImplicitVRLittleEndian)
    assert compare(kept, newer(b"ab", ExplicitVRLittleEndian)) is Difference.SAME
    edited = newer(b"ab", ImplicitVRLittleEndian, PatientName="Other^Test")
    assert compare(kept, edited) is Difference.ATTRIBUTES
    assert compare(kept, newer(b"ac", ImplicitVRLittleEndian)) is Difference.CONFLICT


def test_bytes_of_a_number_are_no_padding() -> None:
    # 32 and 8192 are a blank and a zero byte; so is the end of many a binary value.
    for one, other in (({"Rows": 32}, {"Rows": 8192}), ({"BitsStored": 8224}, {"BitsStored": 0})):
        assert compare(_read(_image(**one)), _read(_image(**other))) is Difference.CONFLICT
    kept = _holding("", _private(number=0.0), ImplicitVRLittleEndian)
    (changed,) = unpack("<f", b"\0\0\0 ")
    other = _holding("", _private(number=changed), ImplicitVRLittleEndian)
    assert compare(kept, other) is Difference.ATTRIBUTES


def test_which_of_two_values_is_missing_counts() -> None:
    kept = _read(_image(PatientOrientation=["L", ""]))
    assert compare(kept, _read(_image(PatientOrientation=["", "L"]))) is Difference.CONFLICT
    assert compare(kept, _read(_image(PatientOrientation="L"))) is Difference.SAME


def test_values_that_are_no_number_are_compared_by_their_bytes() -> None:
    def valued(value: float) -> Dataset:
        item = Dataset()
        item.RealWorldValueSlope = value
        group = Dataset()
        group.RealWorldValueMappingSequence = [item]
        return _holding(IN_GROUPS, group, ExplicitVRLittleEndian, lengths="undefined")

    assert compare(valued(float("nan")), valued(float("nan"))) is Difference.SAME
    assert compare(valued(float("nan")), valued(1.0)) is Difference.CONFLICT


def _iconic(values: bytes, photometric: str = "MONOCHROME2") -> Dataset:
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, photometric
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
    icon.add_new("PixelData", "OB", values)
    return icon


def test_an_icon_that_is_encoded_again_or_made_does_not_count() -> None:
    def iconic(icon: Dataset) -> Dataset:
        return _image(IconImageSequence=[icon])

    kept = _read(iconic(_iconic(bytes(4))))
    for other in (_iconic(bytes(range(4))), _iconic(bytes(6), "PALETTE COLOR")):
        assert compare(kept, _read(iconic(other))) is Difference.SAME
        assert compare(kept, _compressed(iconic(other), RLELossless)) is Difference.SAME
    assert compare(_read(_image()), kept) is Difference.SAME


def test_a_private_icon_that_is_encoded_again_does_not_count() -> None:
    def iconic(icon: Dataset) -> Dataset:
        item = Dataset()
        item.private_block(0x07A3, "ELSCINT1", create=True).add_new(0xCE, "SQ", [icon])
        return _holding("", item, ExplicitVRLittleEndian)

    kept = iconic(_iconic(bytes(4)))
    assert compare(kept, iconic(_iconic(bytes(range(4))))) is Difference.SAME
    larger = _iconic(bytes(4))
    larger.Rows = 4
    assert compare(kept, iconic(larger)) is Difference.ATTRIBUTES


def _equipment(purpose: str) -> Dataset:
    item = Dataset()
    item.Manufacturer, item.ContributionDescription = "ACME", purpose
    return item


NOTES = [
    {"DerivationDescription": "Lossless JPEG compression, compression ratio 2.3"},
    {"InstanceCoercionDateTime": "20261123120000"},
    {"ContributingEquipmentSequence": [_equipment("compressed it")]},
    {"LossyImageCompression": "00"},
]


@pytest.mark.parametrize("noted", NOTES)
def test_what_a_lossless_recoder_notes_of_itself_does_not_count(noted: dict[str, Any]) -> None:
    plain = _read(_image())
    assert compare(plain, _compressed(_image(**noted), RLELossless)) is Difference.SAME
    assert compare(_compressed(_image(**noted), RLELossless), plain) is Difference.SAME


@pytest.mark.parametrize("noted", NOTES)
def test_the_same_notes_without_another_encoding_make_a_new_version(noted: dict[str, Any]) -> None:
    assert compare(_read(_image()), _read(_image(**noted))) is Difference.ATTRIBUTES
    no_pixels = _read(_image(PixelData=None)), _read(_image(PixelData=None, **noted))
    no_pixels[1].file_meta.TransferSyntaxUID = RLELossless
    assert compare(*no_pixels) is Difference.ATTRIBUTES


@pytest.mark.parametrize(
    "noted",
    [{"LossyImageCompression": "01"}, {"ImageType": ["DERIVED"]}, {"StudyDescription": "Chest"}],
)
def test_a_recoder_that_says_more_makes_a_new_version(noted: dict[str, Any]) -> None:
    noted = {**NOTES[0], **noted}
    arrived = _compressed(_image(**noted), RLELossless)
    assert compare(_read(_image()), arrived) is Difference.ATTRIBUTES
    without_loss = _read(_image(LossyImageCompression="00"))
    assert compare(without_loss, arrived) is Difference.ATTRIBUTES


@pytest.mark.parametrize(
    "changed",
    [
        {"PixelData": np.arange(5120, dtype="<u2")[::-1].tobytes()},
        {"PixelSpacing": ["0.6", "0.6"]},
        {"PatientID": "2"},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_a_recoder_that_changes_pixels_patient_or_geometry_is_a_conflict(
    changed: dict[str, Any],
) -> None:
    arrived = _compressed(_image(**NOTES[0], **changed), RLELossless)
    assert compare(_read(_image()), arrived) is Difference.CONFLICT


def test_the_length_to_its_end_does_not_count() -> None:
    one, other = _image(), _image()
    one.add_new(0x00080001, "UL", 12000)
    other.add_new(0x00080001, "UL", 11000)
    assert compare(_read(one), _read(other, ImplicitVRLittleEndian)) is Difference.SAME


def test_group_lengths_inside_sequences_do_not_count() -> None:
    def grouped(*elements: bytes) -> Dataset:
        def item(content: bytes) -> bytes:
            return pack("<HHL", 0xFFFE, 0xE000, len(content)) + content

        measures = item(b"".join(elements))
        groups = item(pack("<HHL", 0x0028, 0x9110, len(measures)) + measures)
        made = _read(_image(SharedFunctionalGroupsSequence=[]), ImplicitVRLittleEndian)
        tag = Tag("SharedFunctionalGroupsSequence")
        made[tag] = RawDataElement(
            *(tag, None, len(groups), groups, 0), is_implicit_VR=True, is_little_endian=True
        )
        return made

    spacing = pack("<HHL", 0x0028, 0x0030, 8) + b"0.5\\0.5 "
    kept = grouped(spacing)
    assert compare(kept, grouped(pack("<HHLL", 0x0028, 0, 4, 16), spacing)) is Difference.SAME
    assert compare(kept, grouped(spacing.replace(b"5", b"6"))) is Difference.CONFLICT


@pytest.mark.parametrize(
    "name", ["Müller^Test^^", "Müller^Test^ ^", "Müller^Test^^^==", "Müller^Test="]
)
@pytest.mark.parametrize("patient_id", ["1", ""])
def test_delimiters_at_the_end_of_a_name_do_not_count(name: str, patient_id: str) -> None:
    kept = _read(_image(PatientID=patient_id))
    assert compare(kept, _read(_image(PatientID=patient_id, PatientName=name))) is Difference.SAME


@pytest.mark.parametrize(
    "name", ["Müller^^Test", "^Müller^Test", "Müller^Test=Müller", "=Müller^Test"]
)
def test_delimiters_inside_a_name_count(name: str) -> None:
    kept, other = _image(PatientID=""), _image(PatientID="", PatientName=name)
    assert compare(_read(kept), _read(other)) is Difference.CONFLICT


# ---------------------------------------------------------------------- what the pixels mean


@pytest.mark.parametrize("frames", ["1", "01"])
def test_a_single_frame_needs_no_number_of_frames(frames: str) -> None:
    counted = _read(_image(NumberOfFrames=frames))
    assert compare(_read(_image()), counted) is Difference.SAME
    assert compare(counted, _read(_image(), ImplicitVRLittleEndian)) is Difference.SAME
    several = _read(_image(NumberOfFrames=2))
    assert compare(_read(_image()), several) is Difference.CONFLICT
    assert compare(several, counted) is Difference.CONFLICT


RAMP = bytes(range(0, 256, 85))


def _palette_image(red: bytes, *, segmented: bool = False, entry: int = 1) -> Dataset:
    """Return an image of four colours; of the red ones one byte or two an entry."""
    made = _image(
        PhotometricInterpretation="PALETTE COLOR",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=bytes(range(4)) * 1280,
    )
    for colour, data in (("Red", red), ("Green", RAMP), ("Blue", RAMP)):
        entries = b"".join(bytes(entry - 1) + bytes([one]) for one in data)
        keyword = f"{colour}PaletteColorLookupTable"
        made.add_new(f"{keyword}Descriptor", "US", [len(data), 0, 8 * entry])
        if segmented:  # one discrete segment (PS3.3 C.7.9.2.1)
            made.add_new(f"Segmented{keyword}Data", "OW", bytes([0, len(data)]) + entries)
        else:
            made.add_new(f"{keyword}Data", "OW", entries)
    return made


def test_another_palette_is_a_conflict_and_is_named() -> None:
    kept, other = _read(_palette_image(RAMP)), _read(_palette_image(RAMP[::-1]))
    assert compare(kept, other) is Difference.CONFLICT
    assert assembly.contradicting(kept, other) == ["RedPaletteColorLookupTableData"]
    segmented = _read(_palette_image(RAMP[::-1], segmented=True))
    assert compare(kept, segmented) is Difference.CONFLICT
    packed = _compressed(_palette_image(RAMP[::-1]), RLELossless)
    assert compare(kept, packed) is Difference.CONFLICT


def test_another_spelling_of_a_palette_is_the_same() -> None:
    kept = _read(_palette_image(RAMP))
    assert compare(kept, _read(_palette_image(RAMP, segmented=True))) is Difference.SAME
    assert compare(kept, _read(_palette_image(RAMP, entry=2))) is Difference.SAME
    assert compare(kept, _compressed(_palette_image(RAMP), RLELossless)) is Difference.SAME


def test_a_palette_of_a_grey_image_that_changes_is_a_conflict() -> None:
    # It colours what is shown of it (PS3.3 C.7.6.19), which decoding does not show.
    kept, other = _palette_image(RAMP), _palette_image(RAMP[::-1])
    kept.PhotometricInterpretation = other.PhotometricInterpretation = "MONOCHROME2"
    assert compare(_read(kept), _read(kept)) is Difference.SAME
    assert compare(_read(kept), _read(other)) is Difference.CONFLICT


def _looked_up(data: list[int], vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), 0, 16])
    item.ModalityLUTType = "HU"
    packed = np.array(data, "<u2").tobytes()
    item.add_new("LUTData", vr, packed if vr == "OW" else data)
    return _image(ModalityLUTSequence=[item])


def test_another_modality_lut_is_a_conflict() -> None:
    kept = _read(_looked_up([1, 2, 3]))
    assert compare(kept, _read(_looked_up([1, 2, 4]))) is Difference.CONFLICT
    assert compare(kept, _read(_image())) is Difference.CONFLICT
    assert compare(_read(_image()), kept) is Difference.CONFLICT
    assert compare(kept, _read(_looked_up([1, 2, 3], "OW"))) is Difference.SAME
    assert compare(kept, _read(_looked_up([1, 2, 3]), ImplicitVRLittleEndian)) is Difference.SAME


@pytest.mark.parametrize(("keyword", "other"), [("RescaleType", "OD"), ("Units", "CNTS")])
def test_another_unit_of_the_pixels_is_a_conflict(keyword: str, other: str) -> None:
    stated = {"RescaleType": "HU", "Units": "BQML"}[keyword]
    kept = _read(_image(**{keyword: stated}))
    assert compare(kept, _read(_image(**{keyword: other}))) is Difference.CONFLICT
    assert compare(_read(_image()), kept) is Difference.ATTRIBUTES


def _colour_image(**elements: Any) -> Dataset:
    return _image(
        **{
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": "RGB",
            "PlanarConfiguration": 0,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelData": (np.arange(15360) % 251).astype("u1").tobytes(),
        }
        | elements
    )


@pytest.mark.parametrize(
    "read", [{"PhotometricInterpretation": "YBR_FULL"}, {"PlanarConfiguration": 1}]
)
def test_the_same_bytes_read_as_other_colours_are_a_conflict(read: dict[str, Any]) -> None:
    kept = _read(_colour_image())
    assert compare(kept, _read(_colour_image(**read))) is Difference.CONFLICT


def test_colours_laid_out_otherwise_are_the_same() -> None:
    by_pixel = (np.arange(15360) % 251).astype("u1").reshape(5120, 3)
    planes = _colour_image(PlanarConfiguration=1, PixelData=by_pixel.T.tobytes())
    assert compare(_read(_colour_image()), _read(planes)) is Difference.SAME


def test_pixels_in_more_bytes_are_the_same_and_in_other_bits_a_conflict() -> None:
    values = np.arange(5120) % 256
    bits = {"BitsStored": 8, "HighBit": 7}
    wide = _image(**bits, PixelData=values.astype("<u2").tobytes())
    narrow = _image(**bits, BitsAllocated=8, PixelData=values.astype("u1").tobytes())
    assert compare(_read(wide), _read(narrow)) is Difference.SAME
    assert compare(_read(_image()), _read(_image(HighBit=15))) is Difference.CONFLICT
