"""Stored values: what is decoded is exact, what is not is refused by name."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HEVCMP51,
    JPEG2000MC,
    MPEG4HP41,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SMPTEST211020UncompressedProgressiveActiveVideo,
)

from pacs_ai.errors import PixelError
from pacs_ai.pixels import decode
from pacs_ai.pixels.decode import stored_values
from pacs_ai.study import Instance, read_instance
from tests.unit.pixels.made import SHARED, grey, image, written

SYNTAXES = SHARED / "syntaxes"
PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def shared(name: str) -> Instance:
    (path,) = SYNTAXES.glob(f"*{name}*")
    return read_instance(path, digest="")


@pytest.mark.parametrize(
    "name",
    ["BigEndianExplicit", "DeflatedExplicit", "JPEG2000LosslessOnly", "RLELossless"],
)
def test_lossless_encodings_of_one_image_decode_to_the_same_values(name: str) -> None:
    values = stored_values(shared(name))
    reference = stored_values(shared("DeflatedExplicit"))
    assert values.dtype == np.int16
    assert values.min() == -2000  # the padding that the header of this CT has outside its circle
    np.testing.assert_array_equal(values, reference)


def test_lossy_jpeg_2000_stays_near_the_lossless_values() -> None:
    lossy = stored_values(shared("JPEG2000TransferSyntax")).astype(int)
    exact = stored_values(shared("DeflatedExplicit")).astype(int)
    difference = np.abs(lossy - exact)
    assert 0 < difference.max() < 50


def test_jpeg_baseline_of_eight_bits_is_decoded() -> None:
    values = stored_values(shared("JPEGProcess1Transfer"))
    assert values.shape == (512, 512)
    assert values.dtype == np.uint8
    assert values.std() > 10


@pytest.mark.parametrize(
    "syntax",
    [
        MPEG4HP41,
        HEVCMP51,
        "1.2.840.10008.1.2.4.110",
        SMPTEST211020UncompressedProgressiveActiveVideo,
        JPEG2000MC,
        "1.2.840.10008.1.2.8.1",
        "1.2.3.4",
    ],
)
def test_a_transfer_syntax_that_is_not_decoded_is_refused_by_its_name(
    tmp_path: Path, syntax: str
) -> None:
    plain = image(tmp_path, PIXELS)
    instance = dataclasses.replace(plain, transfer_syntax_uid=str(syntax))
    with pytest.raises(PixelError, match="is not decoded: have the sender use") as caught:
        stored_values(instance)
    assert pydicom.uid.UID(syntax).name in str(caught.value)
    assert instance.SOPInstanceUID in str(caught.value)


def test_native_values_come_back_as_they_were_written(tmp_path: Path) -> None:
    np.testing.assert_array_equal(stored_values(image(tmp_path, PIXELS)), PIXELS)


def test_odd_number_of_bytes_with_its_padding_byte_is_read(tmp_path: Path) -> None:
    odd = np.arange(15, dtype=np.uint8).reshape(3, 5)
    np.testing.assert_array_equal(stored_values(image(tmp_path, odd)), odd)


def test_big_endian_signed_values_are_right(tmp_path: Path) -> None:
    signed = np.array([[-5, 300], [-1024, 7]], np.int16)
    dataset = grey(signed.astype(">i2"), uid="2.25.11", PixelRepresentation=1)
    instance = written(tmp_path, dataset, syntax=ExplicitVRBigEndian)
    np.testing.assert_array_equal(stored_values(instance), signed)


@pytest.mark.parametrize("cut", [-2, 2, 24])
def test_pixel_data_of_another_length_than_the_header_says_is_refused(
    tmp_path: Path, cut: int
) -> None:
    raw = PIXELS.tobytes()
    data = raw + bytes(cut) if cut > 0 else raw[:cut]
    instance = image(tmp_path, PIXELS, PixelData=data)
    with pytest.raises(PixelError, match=r"Instance 2\.25\.10 has \d+ bytes of PixelData.* say 24"):
        stored_values(instance)


def test_size_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = image(tmp_path, PIXELS, Rows=65535, Columns=65535)
    monkeypatch.setattr(decode, "DECODER", None)
    with pytest.raises(PixelError, match="more than the limit"):
        stored_values(instance)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"NumberOfFrames": 3}, "NumberOfFrames"),
        ({"NumberOfFrames": -1}, "NumberOfFrames -1"),
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "HSV"),
        (
            {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 3},
            "contradicts Photometric",
        ),
        ({"PhotometricInterpretation": "YBR_ICT", "SamplesPerPixel": 3}, "only compressed"),
        ({"PixelRepresentation": 2}, "PixelRepresentation"),
        ({"Rows": None}, "no single value of Rows"),
        ({"Rows": 0}, "Rows 0"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"BitsAllocated": 12}, "BitsAllocated 12"),
        ({"HighBit": 11}, "HighBit 11"),
        ({"PixelData": None}, "no pixel data"),
    ],
)
def test_header_that_is_not_a_grey_image_is_refused_naming_the_element(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PixelError, match=reason) as caught:
        stored_values(image(tmp_path, PIXELS, **elements))
    assert "2.25.10" in str(caught.value)
    # What a person can do.
    assert re.search(r"[:;] (correct|send|select|have the sender) ", str(caught.value))


@pytest.mark.parametrize("dirt", [0xF000, 0x5000])
def test_what_stands_in_unused_bits_is_no_pixel(tmp_path: Path, dirt: int) -> None:
    instance = image(tmp_path, PIXELS | np.uint16(dirt), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(stored_values(instance), PIXELS)


def test_overlay_in_the_unused_bits_is_taken_out(tmp_path: Path) -> None:
    dataset = grey(PIXELS | 0x8000, uid="2.25.12", BitsStored=12, HighBit=11)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 15)
    np.testing.assert_array_equal(stored_values(written(tmp_path, dataset)), PIXELS)


def test_signed_values_of_fewer_bits_keep_their_sign(tmp_path: Path) -> None:
    signed = np.array([[-5, 300], [-1024, 7]], np.int16)
    instance = image(tmp_path, signed, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(stored_values(instance), signed)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit, RLELossless])
def test_broken_compressed_frame_is_refused_without_the_decoder_s_words(
    tmp_path: Path, syntax: str
) -> None:
    eight = np.zeros((4, 4), np.uint8)
    dataset = grey(eight, uid="2.25.13", PixelData=encapsulate([b"\xff\xd8 SECRET^NAME nonsense"]))
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(PixelError, match="cannot be decoded as") as caught:
        stored_values(written(tmp_path, dataset, syntax=syntax))
    assert "SECRET" not in str(caught.value)


def test_compressed_frame_of_another_size_than_the_header_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(next(SYNTAXES.glob("*JPEG2000LosslessOnly*")))
    dataset.Rows = 256
    dataset.save_as(tmp_path / "other.dcm")
    with pytest.raises(PixelError, match="its Rows, Columns and SamplesPerPixel contradict"):
        stored_values(read_instance(tmp_path / "other.dcm", digest=""))


def test_header_that_claims_gigabytes_is_refused() -> None:
    path = SHARED / "malformed" / "2026-05-26-oob-monochrome-65535.dcm"
    with pytest.raises(PixelError, match="more than the limit"):
        stored_values(read_instance(path, digest=""))


def test_truncated_real_file_is_refused() -> None:
    path = get_testdata_file("MR_truncated.dcm")
    assert path is not None
    with pytest.raises(PixelError, match="bytes of PixelData"):
        stored_values(read_instance(Path(str(path)), digest=""))


def in_jpeg(folder: Path, *, after: bytes) -> Instance:
    """Return an Instance of one JPEG frame whose end marker is replaced."""
    packed = io.BytesIO()
    PIL.Image.fromarray(PIXELS.astype(np.uint8)).save(packed, format="JPEG")
    raw = packed.getvalue()
    assert raw.endswith(b"\xff\xd9")
    dataset = grey(PIXELS.astype(np.uint8), uid="2.25.9")
    dataset.PixelData = encapsulate([raw[:-2] + after])
    return written(folder, dataset, syntax=JPEGBaseline8Bit)


@pytest.mark.parametrize("after", [b"\xff\xd9", b"\xff\xd9\0", b"\xff\xff\xd9", b"\xff\xd9\xc5"])
def test_a_codestream_may_be_made_even_by_one_byte_of_any_value(
    after: bytes, tmp_path: Path
) -> None:
    # DCMTK's near-lossless encoder writes what happens to stand in memory.
    assert stored_values(in_jpeg(tmp_path, after=after)).shape == PIXELS.shape


@pytest.mark.parametrize("after", [b"", b"\0\xd9", b"\xff\xd9\x12\x34"])
def test_a_codestream_without_its_end_is_refused(after: bytes, tmp_path: Path) -> None:
    with pytest.raises(PixelError, match="cannot be decoded as JPEG Baseline"):
        stored_values(in_jpeg(tmp_path, after=after))
