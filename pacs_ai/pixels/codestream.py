"""What compressed frames say of themselves, read before a decoder sees them."""

from __future__ import annotations

from dataclasses import dataclass

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = frozenset({0xC3, 0xF7})
_END = b"\xff\xd9"


class CodestreamError(Exception):
    """A compressed frame is not what it should be; the text is fixed and tells nothing of it."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """The frame header of a JPEG or JPEG-LS codestream (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2).

    Attributes
    ----------
    precision, rows, columns : int
    components : tuple of (int, int, int)
        Identifier, horizontal and vertical sampling factor of each.
    lossless : bool
    jfif : bool
        There is a JFIF segment, which means Y, Cb and Cr.
    adobe : int or None
        Colour transform of the Adobe segment: 0 none, 1 Y, Cb and Cr; None where there is none.
    """

    precision: int
    rows: int
    columns: int
    components: tuple[tuple[int, int, int], ...]
    lossless: bool
    jfif: bool
    adobe: int | None

    @property
    def libjpeg_transforms(self) -> bool:
        """Whether libjpeg takes three components for Y, Cb and Cr; it knows no header."""
        if self.jfif:
            return True
        return self.adobe != 0 if self.adobe is not None else self._names != b"RGB"

    def transformed(self, photometric: str) -> bool:
        """Tell whether three components are Y, Cb and Cr.

        The codestream's own word counts, then the header's; but nobody halves the resolution of
        green and blue, so components of different sampling are never RGB.
        """
        if self.jfif or self.adobe is not None:
            return self.libjpeg_transforms
        if self._names in (b"RGB", b"rgb"):
            return False
        subsampled = len({(across, down) for _, across, down in self.components}) > 1
        return photometric != "RGB" or subsampled

    @property
    def _names(self) -> bytes:
        return bytes(one for one, _, _ in self.components)


def jpeg_header(raw: bytes) -> Jpeg:
    """Read the frame header of a JPEG or JPEG-LS codestream.

    Raises
    ------
    CodestreamError
        When it is not one, or ends before its end marker.
    """
    if raw[:2] != b"\xff\xd8":
        raise CodestreamError("no start of image")
    if not ended(raw):
        raise CodestreamError("no end of image")
    jfif, adobe, at = False, None, 2
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            raise CodestreamError("no marker")
        marker = raw[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        body = raw[at + 4 : at + 2 + length]
        if marker in _START_OF_FRAME:
            return _frame_header(body, marker in _LOSSLESS, jfif=jfif, adobe=adobe)
        jfif |= marker == 0xE0 and body.startswith(b"JFIF\0")
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        at += 2 + length
    raise CodestreamError("no start of frame")


def ended(raw: bytes) -> bool:
    """Tell whether a JPEG, JPEG-LS or JPEG 2000 codestream has its end marker, and was not cut off.

    What makes a fragment even is 0 after the marker or 0xFF before it (PS3.5 A.4); DCMTK's near-lossless
    encoder leaves a byte of any value there. No coded data holds the marker's two bytes.
    """
    kept = raw.rstrip(b"\0\xff")
    return kept.endswith(_END) or kept[:-1].endswith(_END)


def _frame_header(body: bytes, lossless: bool, *, jfif: bool, adobe: int | None) -> Jpeg:  # noqa: FBT001
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise CodestreamError("a frame header that is cut off")
    parts = (body[6 + 3 * index : 9 + 3 * index] for index in range(body[5]))
    return Jpeg(
        precision=body[0],
        rows=int.from_bytes(body[1:3], "big"),
        columns=int.from_bytes(body[3:5], "big"),
        components=tuple((part[0], part[1] >> 4, part[1] & 15) for part in parts),
        lossless=lossless,
        jfif=jfif,
        adobe=adobe,
    )


def j2k_transformed(raw: bytes) -> bool:
    """Tell whether a JPEG 2000 codestream has a colour transform of its own.

    The byte after progression and layers of the COD segment (ISO/IEC 15444-1 A.6.1).
    """
    start = raw.find(b"\xff\x4f\xff\x51")
    at = start + 2 if start >= 0 else len(raw)
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] not in (0x90, 0x93):
        if raw[at + 1] == 0x52:
            return len(raw) > at + 8 and raw[at + 8] == 1
        at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return False
