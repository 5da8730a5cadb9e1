"""The head of a data set: read within bounds, from hostile bytes too, and what it says of its role."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import UID, generate_uid

from pacs_ai import study
from pacs_ai.errors import ReceiveError
from pacs_ai.study import HEAD_LIMIT, Head, Instance, Study, read_head
from tests.integration.listening import CT, encoded, image

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG])
def test_the_head_is_read_in_every_encoding(syntax: str) -> None:
    data_set = image(Manufacturer="ACME")
    head = read_head(encoded(data_set, syntax), syntax)
    assert head.SOPClassUID == CT
    assert head.SOPInstanceUID == data_set.SOPInstanceUID
    assert head.StudyInstanceUID == data_set.StudyInstanceUID
    assert head.SeriesInstanceUID == data_set.SeriesInstanceUID
    assert (head.Modality, head.Manufacturer) == ("CT", "ACME")


def test_a_head_names_no_patient() -> None:
    text = repr(read_head(encoded(image(PatientID="CANARY-7"), EXPLICIT), EXPLICIT))
    assert "CANARY" not in text
    assert "Doe" not in text


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_a_missing_uid_is_refused_by_its_name(keyword: str) -> None:
    data_set = image()
    delattr(data_set, keyword)
    with pytest.raises(ReceiveError, match=keyword) as caught:
        read_head(encoded(data_set, EXPLICIT), EXPLICIT)
    assert caught.value.status == 0xC000


@pytest.mark.parametrize("wrong", [b"1.2.x", b"..", b"1.02.3", b"1." * 40])
def test_a_uid_that_is_none_is_refused_without_being_shown(wrong: bytes) -> None:
    data_set = image()
    data = encoded(data_set, EXPLICIT)
    old = str(data_set.StudyInstanceUID).encode()
    data = data.replace(old.ljust(len(old) + len(old) % 2, b"\0"), wrong + wrong[:0])
    with pytest.raises(ReceiveError) as caught:
        read_head(data, EXPLICIT)
    assert wrong.decode() not in str(caught.value).split()


# ---------------------------------------------------------------------- bounds


def test_nothing_past_the_series_is_looked_at() -> None:
    data = encoded(image(), EXPLICIT)
    ending = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFF0) + b"\xff" * 100
    assert read_head(data + ending, EXPLICIT) == read_head(data, EXPLICIT)


class Watched(bytes):
    """Bytes that remember how far anyone looked."""

    furthest = 0

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]  # slices only
        assert isinstance(key, slice)
        Watched.furthest = max(Watched.furthest, key.stop or len(self))
        return bytes(self)[key]


def test_no_more_than_the_limit_is_looked_at() -> None:
    Watched.furthest = 0
    read_head(Watched(encoded(image(), EXPLICIT) + bytes(3 * HEAD_LIMIT)), EXPLICIT)
    assert Watched.furthest == HEAD_LIMIT


def test_an_identity_past_the_limit_is_not_found() -> None:
    data_set = image()
    data_set.add_new(0x00091010, "UN", bytes(HEAD_LIMIT))
    with pytest.raises(ReceiveError):
        read_head(encoded(data_set, EXPLICIT), EXPLICIT)


@pytest.fixture
def memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("memory")
def test_a_deflated_bomb_inflates_no_further_than_the_limit() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeezer.compress(bytes(200 * HEAD_LIMIT)) + squeezer.flush()
    assert len(bomb) < HEAD_LIMIT
    tracemalloc.reset_peak()
    with pytest.raises(ReceiveError):
        read_head(bomb, DEFLATED)
    assert tracemalloc.get_traced_memory()[1] < 8 * HEAD_LIMIT


def test_a_value_that_claims_to_be_huge_is_refused() -> None:
    data = struct.pack("<HH2sHL", 0x0008, 0x0005, b"UN", 0, 0xFFFFFFF0) + bytes(100)
    with pytest.raises(ReceiveError):
        read_head(data, EXPLICIT)


def test_sequences_a_thousand_deep_are_refused() -> None:
    opened = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    opened += struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(ReceiveError):
        read_head(opened * 10_000, EXPLICIT)


SYNTAXES = st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG])
FIXED = image(SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3.5", SeriesInstanceUID="1.2.3.6")
WHOLE = {syntax: encoded(FIXED, syntax) for syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)}
WHOLE[JPEG] = WHOLE[EXPLICIT]


@given(data=st.binary(max_size=400), syntax=SYNTAXES)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    try:
        head = read_head(data, syntax)
    except ReceiveError as error:
        assert error.status == 0xC000
    else:
        assert UID(head.StudyInstanceUID).is_valid


@given(
    syntax=SYNTAXES,
    place=st.integers(0, 400),
    other=st.binary(min_size=1, max_size=12),
    cut=st.integers(0, 60),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_head_is_read_or_refused(syntax: str, place: int, other: bytes, cut: int) -> None:
    data = WHOLE[syntax]
    damaged = (data[:place] + other + data[place + len(other) :])[: len(data) - cut]
    try:
        head = read_head(damaged, syntax)
    except ReceiveError as error:
        assert error.status == 0xC000
    else:
        assert UID(head.SOPInstanceUID).is_valid


def test_every_shared_malformed_file_is_read_or_refused(shared_data: Path) -> None:
    found = [one for one in (shared_data / "malformed").iterdir() if one.is_file()]
    assert found
    for path in found:
        for syntax in (IMPLICIT, EXPLICIT, DEFLATED):
            try:
                read_head(path.read_bytes()[132:][:HEAD_LIMIT], syntax)
            except ReceiveError as error:
                assert error.status == 0xC000


# ---------------------------------------------------------------------- roles

STORAGE = "1.2.840.10008.5.1.4.1.1."


def head(sop_class: str = CT, modality: str = "CT", manufacturer: str = "ACME") -> Head:
    return Head(sop_class, "1.2.3", "1.2", "1.2.4", modality, manufacturer)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1", "CR"),
        ("1.1", "DX"),
        ("1.1.1", "DX"),
        ("1.2", "MG"),
        ("2", "CT"),
        ("2.1", "CT"),
        ("4", "MR"),
        ("4.1", "MR"),
        ("6.1", "US"),
        ("7", "OT"),
        ("7.4", "OT"),
        ("12.1", "XA"),
        ("13.1.3", "MG"),
        ("20", "NM"),
        ("77.1.4.1", "XC"),
        ("77.1.6", "SM"),
        ("128", "PT"),
        ("130", "PT"),
        ("481.1", "RTIMAGE"),
    ],
)
def test_images_of_modalities_are_sources(sop_class: str, modality: str) -> None:
    assert head(STORAGE + sop_class, modality).role == "source"


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("66.4", "SEG"),
        ("66.5", "SEG"),
        ("66.7", "SEG"),
        ("66.1", "REG"),
        ("66", "OT"),
        ("67", "RWV"),
        ("30", "MR"),
        ("11.1", "PR"),
        ("11.2", "PR"),
        ("88.11", "SR"),
        ("88.33", "SR"),
        ("88.34", "SR"),
        ("88.59", "KO"),
        ("88.67", "SR"),
        ("104.1", "DOC"),
        ("481.2", "RTDOSE"),
        ("481.3", "RTSTRUCT"),
        ("481.5", "RTPLAN"),
        ("9.1.1", "ECG"),
        ("91.1", "ANN"),
        ("90.1", "OT"),
        ("79.1", "OT"),
    ],
)
def test_what_is_made_from_images_is_derived(sop_class: str, modality: str) -> None:
    assert head(STORAGE + sop_class, modality).role == "derived"


@pytest.mark.parametrize("modality", ["SEG", "SR", "KO", "PR", "DOC"])
def test_a_derived_modality_decides_even_in_a_private_class(modality: str) -> None:
    assert head("1.2.3.4", modality).role == "derived"


def test_a_capture_of_another_gateway_is_derived() -> None:
    assert head(STORAGE + "7", "OT", manufacturer=f"{study.MANUFACTURER} ").role == "derived"


def test_real_derived_files_are_derived_and_images_are_sources(shared_data: Path) -> None:
    def role(path: Path) -> str:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        classes = (str(header.get(one, "")) for one in ("SOPClassUID", "Modality", "Manufacturer"))
        return head(*classes).role

    found = [one for one in (shared_data / "sr-seg").rglob("*.dcm") if one.is_file()]
    derived = [one for one in found if "-source-" not in one.name]
    assert len(derived) >= 5
    assert {one.name: role(one) for one in derived} == {one.name: "derived" for one in derived}
    images = [*(shared_data / "cxr").glob("*.dcm"), *(shared_data / "ct-other").glob("*.dcm")]
    assert images
    assert {role(one) for one in images} == {"source"}


# ---------------------------------------------------------------------- records


def instance(series: str, number: int) -> Instance:
    header = image(SeriesInstanceUID=series, SOPInstanceUID=f"1.2.3.{number}")
    return Instance(header, Path("nowhere"), "", EXPLICIT)


def test_series_come_in_the_order_of_their_first_instance() -> None:
    members = tuple(instance(*one) for one in (("1.9", 1), ("1.5", 2), ("1.9", 3)))
    made = Study("1.2", members, datetime.now(UTC), "modality")
    assert [one.SeriesInstanceUID for one in made.series] == ["1.9", "1.5"]
    assert [len(one.instances) for one in made.series] == [2, 1]
    assert made.instance("1.2.3.2") is members[1]
    with pytest.raises(KeyError):
        made.instance(generate_uid())


def test_values_show_what_stands_there_without_judging_it() -> None:
    header = pydicom.dcmread(
        BytesIO(encoded(image(PatientAge="062Y"), EXPLICIT).replace(b"062Y", b"62 \0")), force=True
    )
    assert study.values(header, "PatientAge") == ("62",)
    assert study.values(header, "PatientBirthDate") == ()
    assert study.values(header, "Rows") == ("4",)


# ---------------------------------------------------------------------- the short way


def as_the_library_reads(data: bytes, syntax: str) -> Head | None:
    """Read a head the long way; None when it is refused."""
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what it goes on with, such as a character set
        patched.setattr(study, "plain_head", lambda data, syntax: None)
        try:
            return read_head(data, syntax)
        except ReceiveError:
            return None


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, JPEG])
def test_a_plain_head_is_read_the_short_way(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(image(Manufacturer=" ACME ", Modality="CT", PatientName="Müller^Ä"), syntax)
    expected = as_the_library_reads(data, syntax)
    monkeypatch.setattr(pydicom.filereader, "read_dataset", None)
    assert read_head(data, syntax) == expected


@settings(max_examples=400)
@given(
    st.sampled_from([IMPLICIT, EXPLICIT]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
)
@example(EXPLICIT, [(176, 65)], 0)  # a VR that there is not
@example(IMPLICIT, [(118, 5)], 0)  # a character set that there is not
def test_the_short_way_reads_what_the_library_reads_or_nothing(
    syntax: str, damages: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(encoded(PLAIN, syntax))
    for place, value in damages:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) - cut])
    short = study.plain_head(damaged, syntax)
    if short is not None:
        assert short == as_the_library_reads(damaged, syntax)


PLAIN = image(Manufacturer="ACME", Modality="CT", StudyDescription="a study")


def test_the_short_way_reads_real_heads_as_the_library_does(shared_data: Path) -> None:
    short = 0
    for path in sorted(shared_data.rglob("*.dcm")):
        if "malformed" in path.parts:
            continue  # not all of them have a File Meta
        meta = pydicom.filereader.read_file_meta_info(path)
        syntax = str(meta.TransferSyntaxUID)
        with path.open("rb") as file:
            file.seek(144 + int(meta.FileMetaInformationGroupLength))
            data = file.read(HEAD_LIMIT)
        found = study.plain_head(data, syntax)
        if found is not None:
            short += 1
            assert found == as_the_library_reads(data, syntax), path.name
    assert short > 20
