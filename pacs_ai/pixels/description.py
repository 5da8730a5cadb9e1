"""What a header says of its pixel data, checked before anything is read or allocated.

Both sides of the decoder child read it: the gateway before it asks, the child before it decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import pydicom.uid
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs_ai.errors import PixelError
from pacs_ai.study import Instance, values

FRAME_LIMIT = 512 * 1024 * 1024
"""Most bytes of one decoded frame."""

INSTANCE_LIMIT = 64 * 1024**3
"""Most bytes of all frames of one Instance; frames are decoded one by one."""


class Codec(Enum):
    """How the pixel data of a transfer syntax is read."""

    NATIVE = "uncompressed"
    FRAGMENTS = "uncompressed, each frame in fragments"
    RLE = "pydicom"
    JPEG = "Pillow for 8 bits, GDCM for 12"
    JPEG_GDCM = "GDCM"
    JPEG_LS = "pyjpegls"
    JPEG_2000 = "pylibjpeg-openjpeg"


ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
JPEG_FULL_PROGRESSION = UID("1.2.840.10008.1.2.4.55")
"""JPEG Process 10 and 12; retired in 2001 and still met."""

CODECS: dict[UID, Codec] = {
    pydicom.uid.ImplicitVRLittleEndian: Codec.NATIVE,
    pydicom.uid.ExplicitVRLittleEndian: Codec.NATIVE,
    pydicom.uid.DeflatedExplicitVRLittleEndian: Codec.NATIVE,
    pydicom.uid.ExplicitVRBigEndian: Codec.NATIVE,
    ENCAPSULATED_UNCOMPRESSED: Codec.FRAGMENTS,
    pydicom.uid.RLELossless: Codec.RLE,
    pydicom.uid.JPEGBaseline8Bit: Codec.JPEG,
    pydicom.uid.JPEGExtended12Bit: Codec.JPEG,
    JPEG_FULL_PROGRESSION: Codec.JPEG,
    pydicom.uid.JPEGLossless: Codec.JPEG_GDCM,
    pydicom.uid.JPEGLosslessSV1: Codec.JPEG_GDCM,
    pydicom.uid.JPEGLSLossless: Codec.JPEG_LS,
    pydicom.uid.JPEGLSNearLossless: Codec.JPEG_LS,
    pydicom.uid.JPEG2000Lossless: Codec.JPEG_2000,
    pydicom.uid.JPEG2000: Codec.JPEG_2000,
    pydicom.uid.HTJ2KLossless: Codec.JPEG_2000,
    pydicom.uid.HTJ2KLosslessRPCL: Codec.JPEG_2000,
    pydicom.uid.HTJ2K: Codec.JPEG_2000,
}
"""Every transfer syntax whose pixel data is read; all others are refused by name."""

SAMPLES: dict[str, int] = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_420": 3,
    "YBR_PARTIAL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
"""Every PhotometricInterpretation that is read, with its SamplesPerPixel (PS3.3 C.7.6.3.1.2)."""

_HALF_CHROMA = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
_COMPRESSED_ONLY = frozenset({"YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"})


@dataclass(frozen=True, slots=True)
class Description:
    """The Image Pixel Module of one Instance, as far as decoding must know it (PS3.3 C.7.6.3).

    Attributes
    ----------
    uid : str
        SOP Instance UID.
    syntax : UID
        Transfer syntax.
    rows, columns, frames, samples : int
    photometric : str
    allocated, stored : int
        Bits.
    signed : bool
    planar : bool
        Samples lie plane by plane in native pixel data.
    floating : bool
        Float or Double Float Pixel Data, which have no BitsStored (PS3.3 C.7.6.24).
    """

    uid: str
    syntax: UID
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    planar: bool
    floating: bool

    @property
    def codec(self) -> Codec:
        """How the pixel data is read."""
        return CODECS[self.syntax]

    @property
    def colour(self) -> bool:
        """Whether a frame comes as red, green and blue."""
        return self.samples == 3 or self.photometric == "PALETTE COLOR"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a decoded frame: (Rows, Columns), and 3 where it is colour."""
        return (self.rows, self.columns, 3) if self.colour else (self.rows, self.columns)

    @property
    def half_chroma(self) -> bool:
        """Whether native pixel data holds one pair of colour samples for two pixels."""
        return self.photometric in _HALF_CHROMA

    @property
    def frame_bits(self) -> int:
        """Bits of one frame in native pixel data."""
        samples = 2 if self.half_chroma else self.samples
        return self.rows * self.columns * samples * self.allocated

    def error(self, text: str) -> PixelError:
        """Return a refusal that names the Instance."""
        return PixelError(f"Instance {self.uid} {text}")


def named(instance: Instance) -> str:
    """Return how messages name an Instance: by its UID and nothing of the patient's."""
    return f"Instance {instance.SOPInstanceUID}"


def number(instance: Instance, keyword: str) -> int:
    """Return an element of the Image Pixel Module that must be one whole number.

    Raises
    ------
    PixelError
        When it is missing, empty or has several values.
    """
    return _number(instance.header, keyword)


def describe(header: Dataset, transfer_syntax_uid: str) -> Description:
    """Read and check the Image Pixel Module; nothing is allocated.

    Raises
    ------
    PixelError
        When the transfer syntax is not decoded, an element is missing or impossible, two contradict
        each other, or the pixels would be larger than :data:`FRAME_LIMIT` or
        :data:`INSTANCE_LIMIT`.
    """
    syntax = UID(transfer_syntax_uid)
    uid = _uid(header)
    if syntax not in CODECS:
        raise PixelError(
            f"Instance {uid} is encoded as {syntax.name} ({syntax}), which is not decoded: "
            "have the sender use Explicit VR Little Endian"
        )
    if not values(header, "Rows") and not values(header, "BitsAllocated"):
        raise PixelError(
            f"Instance {uid} has no Image Pixel Module (Rows, BitsAllocated): it is no image; "
            "select images"
        )
    photometric = " ".join(values(header, "PhotometricInterpretation")[:1]) or "none"
    allocated = _number(header, "BitsAllocated")
    # Float and Double Float Pixel Data have neither BitsStored nor PixelRepresentation.
    floating = allocated in (32, 64) and not values(header, "BitsStored")
    found = Description(
        uid=uid,
        syntax=syntax,
        rows=_number(header, "Rows"),
        columns=_number(header, "Columns"),
        frames=_number(header, "NumberOfFrames") if values(header, "NumberOfFrames") else 1,
        samples=_number(header, "SamplesPerPixel"),
        photometric=photometric,
        allocated=allocated,
        stored=allocated if floating else _number(header, "BitsStored"),
        signed=not floating and _number(header, "PixelRepresentation") == 1,
        planar=values(header, "PlanarConfiguration")[:1] == ("1",),
        floating=floating,
    )
    for check in _CHECKS:
        check(found, header)
    return found


def _uid(header: Dataset) -> str:
    return "".join(values(header, "SOPInstanceUID")[:1]) or "without SOPInstanceUID"


def _number(header: Dataset, keyword: str) -> int:
    found = values(header, keyword)
    try:
        (only,) = found
        return int(only)
    except ValueError:
        raise PixelError(
            f"Instance {_uid(header)} has no single value of {keyword}: correct it at its source"
        ) from None


def _check_colour(found: Description, header: Dataset) -> None:
    if found.photometric not in SAMPLES:
        raise found.error(
            f"has PhotometricInterpretation {_shown(found.photometric)}, which is not read: have the "
            f"sender use one of {', '.join(SAMPLES)}"
        )
    if SAMPLES[found.photometric] != found.samples:
        raise found.error(
            f"has SamplesPerPixel {found.samples}, which contradicts PhotometricInterpretation "
            f"{found.photometric} (PS3.3 C.7.6.3.1.2): correct it at its source"
        )
    if found.codec in (Codec.NATIVE, Codec.FRAGMENTS) and found.photometric in _COMPRESSED_ONLY:
        raise found.error(
            f"is uncompressed and has PhotometricInterpretation {found.photometric}, which only "
            "compressed pixel data has (PS3.3 C.7.6.3.1.2): correct it at its source"
        )
    if found.codec is Codec.NATIVE and found.half_chroma and found.columns % 2:
        raise found.error(
            f"has {found.columns} Columns and PhotometricInterpretation {found.photometric}, which "
            "holds pixels in pairs: correct it at its source"
        )


def _shown(text: str) -> str:
    """Return a code string as far as it is one; other text could be anything."""
    return text if len(text) <= 16 and text.replace("_", "").replace(" ", "").isalnum() else "?"


def _check_bits(found: Description, header: Dataset) -> None:
    allowed = (1, 8, 16, 32) if not found.colour else (8, 16)
    if found.floating:
        allowed = (32, 64)
        if found.colour or found.codec is not Codec.NATIVE:
            raise found.error("has no BitsStored: correct it at its source")
    if found.allocated not in allowed or not 1 <= found.stored <= found.allocated:
        raise found.error(
            f"has BitsAllocated {found.allocated} and BitsStored {found.stored}, which is not read: "
            f"have the sender allocate {' or '.join(map(str, allowed))} bits and store no more than "
            "these"
        )
    if found.allocated == 1 and found.codec is not Codec.NATIVE:
        raise found.error(
            "has BitsAllocated 1 and is compressed, which is not read: have the sender use Explicit "
            "VR Little Endian"
        )
    high = found.stored - 1 if found.floating else _number(header, "HighBit")
    if high != found.stored - 1:
        raise found.error(
            f"has HighBit {high} with BitsStored {found.stored}: HighBit is one less "
            "than BitsStored (PS3.5 8.1.1); correct it at its source"
        )
    if not found.floating and _number(header, "PixelRepresentation") not in (0, 1):
        raise found.error("has a PixelRepresentation other than 0 and 1: correct it at its source")
    if found.colour and found.signed:
        raise found.error("is colour and signed (PixelRepresentation): correct it at its source")


def _check_size(found: Description, header: Dataset) -> None:
    if found.rows < 1 or found.columns < 1:
        raise found.error(
            f"has Rows {found.rows} and Columns {found.columns}, which is no image: correct it at "
            "its source"
        )
    if found.frames < 1:
        raise found.error(f"has NumberOfFrames {found.frames}: correct it at its source")
    # A bit becomes a byte, and a palette makes three of one.
    size = found.rows * found.columns * max(found.samples, 3 if found.colour else 1)
    size *= max(found.allocated // 8, 1)
    if size > FRAME_LIMIT or size * found.frames > INSTANCE_LIMIT:
        raise found.error(
            f"has {found.rows} Rows of {found.columns} Columns in {found.frames} frames "
            f"(NumberOfFrames), more than the limit of {FRAME_LIMIT} bytes a frame or "
            f"{INSTANCE_LIMIT} in all: send it at its usual size"
        )


_CHECKS: tuple[Callable[[Description, Dataset], None], ...] = (
    _check_size,
    _check_colour,
    _check_bits,
)
