"""Decoded frames against GDCM, DCMTK and pydicom on the real images of every transfer syntax."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from pacs_ai.pixels.decode import stored_frames
from pacs_ai.study import read_instance

SHARED = Path(__file__).parents[3] / "shared" / "data"
SYNTAXES = sorted(path.name for path in (SHARED / "syntaxes").glob("CTImage*"))
GREY = [
    *(f"syntaxes/{name}" for name in SYNTAXES),
    *("mg/mg-mlo-12bit-jpeglossless.dcm", "mr-other/mr-brain-jpegll-nema.dcm"),
    *("cxr/cr-pa-mono1-10bit-fuji.dcm", "xa-nm/xa-1frame-j2ki-nema.dcm"),
    *("us/us-8frame-mono2-j2k.dcm", "multiframe/enhanced-ct-2frame.dcm"),
    *("malformed/J2K_pixelrep_mismatch.dcm", "malformed/bad_sequence.dcm"),
]
COLOUR = {
    # DCMTK renders these; how far a sample may differ by rounding of the colour transform.
    "us/us-34frame-ybr422-jpeg.dcm": 1,
    "us/us-1frame-palette-rle.dcm": 0,
    "us/us-1frame-ybr_full-rle.dcm": 2,
    "us/us-1frame-ybr_full_422-uncompressed.dcm": 1,
    "wsi/sm-15frame-jpeg-camelyon.dcm": 1,
    "malformed/1403-OB.dcm": 0,
}


def ours(name: str) -> NDArray[Any]:
    return next(stored_frames(read_instance(SHARED / name, digest="")))


def by_gdcm(path: Path) -> bytes:
    if sys.modules.get("gdcm") is None:
        sys.modules.pop("gdcm", None)  # the command line keeps it out of our own processes
    gdcm = importlib.import_module("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    buffer = reader.GetImage().GetBuffer()
    return bytes(buffer.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("name", GREY)
def test_grey_values_are_those_of_gdcm(name: str) -> None:
    values = ours(name)
    theirs = np.frombuffer(by_gdcm(SHARED / name), values.dtype)[: values.size]
    if name.endswith("J2K_pixelrep_mismatch.dcm"):
        # The codestream says unsigned, the header signed: GDCM leaves 13 bits without their sign.
        theirs = ((theirs.astype(np.int16) << 3) >> 3).astype(values.dtype)
    np.testing.assert_array_equal(values, theirs.reshape(values.shape))


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        *((name, "dcmdjpeg") for name in SYNTAXES if "JPEGProcess" in name),
        *((name, "dcmdjpls") for name in SYNTAXES if "JPEGLS" in name),
        *((name, "dcmdrle") for name in SYNTAXES if "RLE" in name),
        *((name, "dcmconv") for name in SYNTAXES if "BigEndian" in name or "Deflated" in name),
    ],
)
def test_grey_values_are_those_of_dcmtk(name: str, tool: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.dcm"
    flags = ["+te"] if tool == "dcmconv" else []
    source = SHARED / "syntaxes" / name
    subprocess.run([tool, *flags, str(source), str(plain)], check=True, capture_output=True)
    theirs = dcmread(plain)
    values = ours(f"syntaxes/{name}")
    np.testing.assert_array_equal(
        values, np.frombuffer(theirs.PixelData, values.dtype).reshape(values.shape)
    )


@pytest.mark.parametrize(
    "name", [name for name in GREY if "10_12" not in name and "2_4" not in name]
)
def test_grey_values_are_those_of_pydicom(name: str) -> None:
    np.testing.assert_array_equal(
        ours(name), pixel_array(dcmread(SHARED / name), raw=True, index=0)
    )


@pytest.mark.parametrize("name", COLOUR)
def test_colour_is_that_of_dcmtk(name: str, tmp_path: Path) -> None:
    picture = tmp_path / "frame.ppm"
    command = ["dcmj2pnm", "+op", "+F", "1", str(SHARED / name), str(picture)]
    subprocess.run(command, check=True, capture_output=True)
    with PIL.Image.open(picture) as opened:
        theirs = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(ours(name).astype(int) - theirs).max() <= COLOUR[name]


@pytest.mark.parametrize(
    "name",
    [
        *("us/us-1frame-ybr_ict-j2ki-nema.dcm", "vl/endoscopy-barretts-j2ki-nema.dcm"),
        *("syntaxes/HTJ2K_08_RGB.dcm", "charsets/Lena-utf8.dcm"),
    ],
)
def test_colour_that_dcmtk_does_not_read_is_that_of_pydicom(name: str) -> None:
    difference = np.abs(ours(name).astype(int) - pixel_array(SHARED / name, index=0))
    assert difference.max() <= 1
