"""The rules by which a Study at a PACS is or is not the one whose results are to be sent."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs_ai.peers.identity import differing


def _header(**values: Any) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {"PatientID": "P1", **values}.items():
        # As a PACS answers it, whether the VR allows it or not.
        element = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE)
        header.add(element)
    return header


@pytest.mark.parametrize(
    ("keyword", "ours", "theirs"),
    [
        ("PatientID", "P1", " P1 "),
        ("PatientID", "", ""),
        ("IssuerOfPatientID", "HOSPITAL", ""),
        ("IssuerOfPatientID", "HOSPITAL ", "HOSPITAL"),
        ("PatientName", "Müller^Jürgen", "MULLER^JURGEN^^"),
        ("PatientName", "Nguyễn^Thị", "Nguyen^Thi"),
        ("PatientName", "Андре\u0439", "АНДРЕ\u0418\u0306"),
        ("PatientName", "O'Brien^Anne-Marie", "OBrien^Anne Marie".replace("OB", "O B")),
        ("PatientName", "Yamada^Tarou=山田^太郎", "YAMADA^TAROU"),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada^tarou==やまだ^たろう"),
        ("PatientName", "Doe^Jane", ""),
        ("PatientBirthDate", "19700102", "19700102 "),
        ("PatientBirthDate", "", "19700102"),
        ("PatientSex", "f", "F"),
        ("AccessionNumber", "A1", ""),
    ],
)
def test_what_names_the_same_study(keyword: str, ours: str, theirs: str) -> None:
    assert differing(_header(**{keyword: ours}), _header(**{keyword: theirs})) == ()
    assert differing(_header(**{keyword: theirs}), _header(**{keyword: ours})) == ()


@pytest.mark.parametrize(
    ("keyword", "ours", "theirs"),
    [
        ("PatientID", "P1", "P2"),
        ("PatientID", "P1", "p1"),
        ("PatientID", "P1", ""),
        ("PatientID", "001", "1"),
        ("IssuerOfPatientID", "HOSPITAL", "CLINIC"),
        ("PatientName", "Doe^Jane", "Doe^John"),
        ("PatientName", "Doe^Jane", "Jane^Doe"),
        ("PatientName", "Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^次郎"),
        ("PatientName", "=はやし", "=ばやし"),
        ("PatientName", "Андрей", "Андреи"),
        ("PatientName", "Семён", "Семен"),
        ("PatientName", "Ελενη\u0390", "Ελενηι"),
        ("PatientBirthDate", "19700102", "19700201"),
        ("PatientSex", "F", "M"),
        ("AccessionNumber", "A1", "A2"),
    ],
)
def test_what_does_not(keyword: str, ours: str, theirs: str) -> None:
    assert differing(_header(**{keyword: ours}), _header(**{keyword: theirs})) == (keyword,)
    assert differing(_header(**{keyword: theirs}), _header(**{keyword: ours})) == (keyword,)


@pytest.mark.filterwarnings("ignore:Failed to decode byte string")  # pydicom's; it quotes nothing
@pytest.mark.parametrize(
    ("keyword", "character_set", "ours", "theirs"),
    [
        ("PatientID", "ISO_IR 192", b"\xdc1", b"\xd61"),
        ("PatientID", "ISO_IR 192", b"\xdc1", b"\xdc1"),
        ("PatientID", "ISO_IR 192", b"\xdc1", b""),
        ("PatientName", "ISO_IR 192", b"M\xfcller", b"M\xf6ller"),
        ("PatientName", "\\ISO 2022 IR 87", b"\x1b$B\xfe\xfe\x1b(B", b"\x1b$B\xff\xff\x1b(B"),
        ("IssuerOfPatientID", "ISO_IR 192", b"\xdc", b"\xd6"),
        ("AccessionNumber", "ISO_IR 192", b"A\xdc", b"A\xd6"),
    ],
)
def test_bytes_that_are_no_text_are_equal_to_nothing(
    keyword: str, character_set: str, ours: bytes, theirs: bytes
) -> None:
    one, other = (_read(character_set, keyword, value) for value in (ours, theirs))
    assert differing(one, other) == (keyword,)
    assert differing(other, one) == (keyword,)


def _read(character_set: str, keyword: str, value: bytes) -> Dataset:
    """Return a header as it is read from bytes."""
    raw = b""
    for name, content in (("SpecificCharacterSet", character_set.encode()), (keyword, value)):
        tag, padded = Tag(name), content + b" " * (len(content) % 2)
        raw += struct.pack("<HHL", tag.group, tag.element, len(padded)) + padded
    return dcmread(BytesIO(raw), force=True)


def test_an_element_that_is_missing_is_as_good_as_empty() -> None:
    assert differing(Dataset(), Dataset()) == ()
    assert differing(_header(), Dataset()) == ("PatientID",)


def test_every_difference_is_named_in_one_order() -> None:
    ours = _header(PatientName="A", PatientSex="F", PatientBirthDate="19700102")
    theirs = _header(PatientName="B", PatientSex="M", PatientBirthDate="19700103", PatientID="2")
    named = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
    assert differing(ours, theirs) == named
