"""Phantoms in every transfer syntax, and colour in every form, that the shared images do not have.

Three frames each, none like another and of odd height, so that a frame too early, too late or a row too far
is another picture. Encoded by DCMTK, by OpenJPH, and JPEG 2000 by OpenJPEG.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

from pacs_ai.pixels.description import ENCAPSULATED_UNCOMPRESSED
from tests.peers import require

FRAMES, ROWS, COLUMNS = 3, 45, 62

Pixels = NDArray[Any]
Plain = Callable[[], Dataset]
Encoder = Callable[[Plain, Path], Path]


@dataclass(frozen=True)
class Phantom:
    """Frames, and a way to encode them.

    Attributes
    ----------
    plain : callable
        Returns the uncompressed Instance.
    encode : callable
        Takes it and a folder, and returns the file it wrote there.
    shows : ndarray or None
        What must be decoded: grey, or red, green and blue.
    within : int or None
        By how many grey levels the encoding may move a pixel; None where it promises nothing.
    """

    plain: Plain
    encode: Encoder
    shows: Pixels = field(repr=False)
    within: int | None = 0

    def written(self, folder: Path) -> Path:
        """Return the encoded file."""
        return self.encode(self.plain, folder)


# ---------------------------------------------------------------------- what they show


def grey(bits: int, *, signed: bool = False, columns: int = COLUMNS) -> Pixels:
    """Return frames of slopes, a disc and grain, shape (FRAMES, ROWS, columns), over all of the range."""
    frame, row, column = np.mgrid[:FRAMES, :ROWS, :columns].astype(float)
    share = (row / ROWS + column / columns) / 2.5 + 0.05 * frame
    share += 0.15 * ((row - 20 - 3 * frame) ** 2 + (column - 25) ** 2 < 150)
    share += np.random.default_rng(1).normal(0, 0.005, share.shape)
    found = np.rint(np.clip(share, 0, 1) * ((1 << bits) - 1)).astype(np.int64)
    if signed:
        found -= 1 << (bits - 1)
    return found.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def colour(*, columns: int = COLUMNS) -> Pixels:
    """Return frames of three different slopes, shape (FRAMES, ROWS, columns, 3)."""
    one = grey(8, columns=columns)
    return np.stack([one, one[:, ::-1] // 2 + 60, one[:, :, ::-1]], axis=-1)


def to_ybr_full(pixels: Pixels) -> Pixels:
    """Return Y, Cb and Cr of red, green and blue (PS3.3 C.7.6.3.1.2)."""
    forward = np.array(
        [[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]]
    )
    mixed = pixels.astype(float) @ forward.T + np.array([0, 128, 128])
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def plain(pixels: Pixels, bits: int, **elements: Any) -> Dataset:
    """Return an uncompressed Instance of frames."""
    made = Dataset()
    grey_image = pixels.ndim == 3
    made.SOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        if grey_image
        else MultiFrameTrueColorSecondaryCaptureImageStorage
    )
    made.SOPInstanceUID = made.StudyInstanceUID = made.SeriesInstanceUID = "2.25.4711"
    made.Modality, made.PatientID, made.PatientName = "OT", "phantom", "Phantom^Encoded"
    made.NumberOfFrames, made.Rows, made.Columns = pixels.shape[:3]
    made.SamplesPerPixel = 1 if grey_image else 3
    made.PhotometricInterpretation = "MONOCHROME2" if grey_image else "RGB"
    if not grey_image:
        made.PlanarConfiguration = 0
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    made.PixelData = padded(pixels.tobytes())
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def padded(raw: bytes) -> bytes:
    return raw + b"\0" * (len(raw) % 2)


def saved(made: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(path, enforce_file_format=True)
    return path


# ---------------------------------------------------------------------- colour


def rgb(*, planar: bool = False, columns: int = COLUMNS) -> Dataset:
    pixels = colour(columns=columns)
    made = plain(pixels, 8)
    if planar:
        made.PlanarConfiguration = 1
        made.PixelData = padded(pixels.transpose(0, 3, 1, 2).tobytes())
    return made


def ybr_full(*, planar: bool = False) -> Dataset:
    pixels = to_ybr_full(colour())
    made = plain(pixels, 8, PhotometricInterpretation="YBR_FULL")
    if planar:
        made.PlanarConfiguration = 1
        made.PixelData = padded(pixels.transpose(0, 3, 1, 2).tobytes())
    return made


def ybr_full_422() -> Dataset:
    """Two pixels share the Cb and Cr of the first (PS3.3 C.7.6.3.1.2): Y1 Y2 Cb Cr."""
    y, blue, red = np.moveaxis(to_ybr_full(colour()), -1, 0)
    fours = np.stack([y[..., ::2], y[..., 1::2], blue[..., ::2], red[..., ::2]], axis=-1)
    return plain(colour(), 8, PhotometricInterpretation="YBR_FULL_422", PixelData=fours.tobytes())


def palette(*, bits: int = 8) -> Dataset:
    made = plain(grey(8), 8, PhotometricInterpretation="PALETTE COLOR")
    made.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    ramp = np.arange(256)
    for name, values in (("Red", ramp), ("Green", 255 - ramp), ("Blue", ramp * 7 % 256)):
        table = values.astype(np.uint8) if bits == 8 else (values * 257).astype("<u2")
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(made, f"{name}PaletteColorLookupTableData", table.tobytes())
    return made


# ---------------------------------------------------------------------- how they are encoded


def native(syntax: UID = ExplicitVRLittleEndian) -> Encoder:
    return lambda made, folder: saved(made(), folder / "native.dcm", syntax)


def by_dcmtk(tool: str, *flags: str) -> Encoder:
    """Encode with a program of DCMTK."""

    def encode(made: Plain, folder: Path) -> Path:
        source, packed = saved(made(), folder / "plain.dcm"), folder / "packed.dcm"
        command = [str(require(tool)), *flags, str(source), str(packed)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return packed

    return encode


def by_openjpeg(*, photometric: str = "", rate: float = 0) -> Encoder:
    """Encode as JPEG 2000, with its own colour transform where the photometric says so."""

    def encode(made: Plain, folder: Path) -> Path:
        dataset = dcmread(saved(made(), folder / "plain.dcm"))
        if photometric:
            dataset.PhotometricInterpretation = photometric
        ways: dict[str, Any] = {"j2k_cr": [rate]} if rate else {}
        syntax = JPEG2000 if rate else JPEG2000Lossless
        dataset.compress(syntax, encoding_plugin="pylibjpeg", **ways)
        dataset.save_as(folder / "packed.dcm", enforce_file_format=True)
        return folder / "packed.dcm"

    return encode


def by_openjph(syntax: UID, *, photometric: str = "") -> Encoder:
    """Encode as High-Throughput JPEG 2000, with its own colour transform where the photometric says so."""
    flags = [
        *("-prog_order", "RPCL" if syntax == HTJ2KLosslessRPCL else "LRCP"),
        *("-reversible", str(syntax != HTJ2K).lower()),
        *(("-colour_trans", "true") if photometric else ()),
    ]

    def encode(made: Plain, folder: Path) -> Path:
        dataset = made()
        frames = pixel_array(dcmread(saved(dataset, folder / "plain.dcm")))
        dataset.PixelData = encapsulate(
            [_by_openjph(one, dataset.BitsStored, flags) for one in frames]
        )
        dataset["PixelData"].VR = "OB"
        dataset.PhotometricInterpretation = photometric or dataset.PhotometricInterpretation
        return saved(dataset, folder / "packed.dcm", syntax)

    return encode


def _by_openjph(picture: Pixels, bits: int, flags: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        kind, suffix = (b"P6", "ppm") if picture.ndim == 3 else (b"P5", "pgm")
        source, packed = Path(name) / f"frame.{suffix}", Path(name) / "frame.j2c"
        size = f"{picture.shape[1]} {picture.shape[0]} {(1 << bits) - 1}".encode()
        raw = picture.astype(picture.dtype.newbyteorder(">")).tobytes()
        source.write_bytes(b"%s\n%s\n%s" % (kind, size, raw))
        command = [str(require("ojph_compress")), "-i", str(source), "-o", str(packed), *flags]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return packed.read_bytes()


def in_fragments(made: Plain, folder: Path) -> Path:
    """Encapsulate uncompressed frames (PS3.5 A.4.11)."""
    dataset = made()
    size = len(dataset.PixelData) // FRAMES
    raw = [dataset.PixelData[start : start + size] for start in range(0, FRAMES * size, size)]
    dataset.PixelData = encapsulate([padded(one) for one in raw])
    return saved(dataset, folder / "packed.dcm", ENCAPSULATED_UNCOMPRESSED)


# ---------------------------------------------------------------------- the table


def of_grey(bits: int, encode: Encoder, *, signed: bool = False, within: int | None = 0) -> Phantom:
    shows = grey(bits, signed=signed)
    return Phantom(partial(plain, shows, bits), encode, shows, within)


def of_rgb(
    encode: Encoder, *, planar: bool = False, columns: int = COLUMNS, within: int | None = 0
) -> Phantom:
    return Phantom(
        partial(rgb, planar=planar, columns=columns), encode, colour(columns=columns), within
    )


def of_ybr_full(encode: Encoder, *, planar: bool = False) -> Phantom:
    """Rounded to eight bits twice, there and back."""
    return Phantom(partial(ybr_full, planar=planar), encode, colour(), within=1)


def of_palette(encode: Encoder, *, bits: int = 8) -> Phantom:
    stored = grey(8).astype(int)
    shows = np.stack([stored, 255 - stored, stored * 7 % 256], axis=-1).astype(np.uint8)
    return Phantom(partial(palette, bits=bits), encode, shows)


def big_endian(made: Plain, folder: Path) -> Path:
    dataset = made()
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    return saved(dataset, folder / "big.dcm", ExplicitVRBigEndian)


LOSSY = None
PHANTOMS: dict[str, Phantom] = {
    "native RGB": of_rgb(native()),
    "native RGB by plane": of_rgb(native(), planar=True),
    "native YBR_FULL": of_ybr_full(native()),
    "native YBR_FULL by plane": of_ybr_full(native(), planar=True),
    "native YBR_FULL_422": Phantom(ybr_full_422, native(), colour(), LOSSY),
    "native palette": of_palette(native()),
    "native palette of 16 bits": of_palette(native(), bits=16),
    "big endian grey": of_grey(12, big_endian),
    "deflated grey": of_grey(12, by_dcmtk("dcmconv", "+td")),
    "fragments": of_grey(12, in_fragments),
    "RLE grey 8": of_grey(8, by_dcmtk("dcmcrle")),
    "RLE grey 16 signed": of_grey(16, by_dcmtk("dcmcrle"), signed=True),
    "RLE RGB": of_rgb(by_dcmtk("dcmcrle")),
    "RLE YBR_FULL": of_ybr_full(by_dcmtk("dcmcrle")),
    "RLE palette": of_palette(by_dcmtk("dcmcrle")),
    "JPEG baseline grey": of_grey(8, by_dcmtk("dcmcjpeg", "+eb"), within=LOSSY),
    "JPEG baseline YBR_FULL_422": of_rgb(by_dcmtk("dcmcjpeg", "+eb"), within=LOSSY),
    "JPEG baseline YBR_FULL_422, odd width": of_rgb(
        by_dcmtk("dcmcjpeg", "+eb"), columns=COLUMNS - 1, within=LOSSY
    ),
    "JPEG baseline YBR_FULL": of_rgb(by_dcmtk("dcmcjpeg", "+eb", "+s4"), within=LOSSY),
    "JPEG baseline RGB": of_rgb(by_dcmtk("dcmcjpeg", "+eb", "+cr"), within=LOSSY),
    "JPEG extended 8": of_grey(8, by_dcmtk("dcmcjpeg", "+ee", "+be"), within=LOSSY),
    "JPEG extended 12": of_grey(12, by_dcmtk("dcmcjpeg", "+ee", "+bt"), within=LOSSY),
    "JPEG progressive 12": of_grey(12, by_dcmtk("dcmcjpeg", "+ep", "+bt"), within=LOSSY),
    "JPEG lossless SV1 grey 8": of_grey(8, by_dcmtk("dcmcjpeg", "+e1")),
    "JPEG lossless SV1 grey 12": of_grey(12, by_dcmtk("dcmcjpeg", "+e1")),
    "JPEG lossless SV1 grey 16 signed": of_grey(16, by_dcmtk("dcmcjpeg", "+e1"), signed=True),
    "JPEG lossless SV1 RGB": of_rgb(by_dcmtk("dcmcjpeg", "+e1")),
    **{
        f"JPEG lossless SV{way} grey 12": of_grey(12, by_dcmtk("dcmcjpeg", "+el", "+sv", way))
        for way in ("2", "3", "4", "5", "6", "7")
    },
    "JPEG lossless SV4 RGB": of_rgb(by_dcmtk("dcmcjpeg", "+el", "+sv", "4")),
    "JPEG-LS grey 8": of_grey(8, by_dcmtk("dcmcjpls")),
    "JPEG-LS grey 12": of_grey(12, by_dcmtk("dcmcjpls")),
    "JPEG-LS grey 16 signed": of_grey(16, by_dcmtk("dcmcjpls"), signed=True),
    "JPEG-LS RGB by line": of_rgb(by_dcmtk("dcmcjpls")),
    "JPEG-LS RGB by sample": of_rgb(by_dcmtk("dcmcjpls", "+is")),
    "JPEG-LS RGB by plane": of_rgb(by_dcmtk("dcmcjpls", "+in")),
    "JPEG-LS near-lossless grey 12": of_grey(12, by_dcmtk("dcmcjpls", "+en", "+md", "3"), within=3),
    "JPEG-LS near-lossless RGB": of_rgb(by_dcmtk("dcmcjpls", "+en"), within=2),
    "JPEG 2000 lossless grey 12": of_grey(12, by_openjpeg()),
    "JPEG 2000 lossless grey 16 signed": of_grey(16, by_openjpeg(), signed=True),
    "JPEG 2000 lossless RGB": of_rgb(by_openjpeg()),
    "JPEG 2000 lossless YBR_RCT": of_rgb(by_openjpeg(photometric="YBR_RCT")),
    "JPEG 2000 lossy grey 12": of_grey(12, by_openjpeg(rate=5), within=LOSSY),
    "JPEG 2000 lossy YBR_ICT": of_rgb(by_openjpeg(photometric="YBR_ICT", rate=5), within=LOSSY),
    "HTJ2K lossless grey 8": of_grey(8, by_openjph(HTJ2KLossless)),
    "HTJ2K lossless grey 12": of_grey(12, by_openjph(HTJ2KLossless)),
    "HTJ2K lossless RPCL grey 16": of_grey(16, by_openjph(HTJ2KLosslessRPCL)),
    "HTJ2K lossless YBR_RCT": of_rgb(by_openjph(HTJ2KLossless, photometric="YBR_RCT")),
    "HTJ2K lossy grey 12": of_grey(12, by_openjph(HTJ2K), within=LOSSY),
    "HTJ2K lossy YBR_ICT": of_rgb(by_openjph(HTJ2K, photometric="YBR_ICT"), within=LOSSY),
}
