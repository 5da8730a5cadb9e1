"""File Meta Information as bytes: written in front of a data set, and where it ends (PS3.10 section 7.1)."""

from __future__ import annotations

from functools import lru_cache
from struct import pack

from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_GROUP = b"\x02\x00"
LOOKED_AT = 6
"""Bytes of the data set in which an element of File Meta Information is known: group, element and VR."""
GROUP_LENGTH_END = 144
"""Where what the group length counts begins: after preamble, prefix and the length itself."""

_LONG = (b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Whose length has four bytes, after two that are reserved (PS3.5 section 7.1.2)."""


def _text(element: int, vr: bytes, value: str) -> bytes:
    # UI is padded with NUL, SH with a space, to even length (PS3.5 section 6.2).
    data = value.encode("ascii")
    if len(data) % 2:
        data += b"\0" if vr == b"UI" else b" "
    return pack("<HH2sH", 2, element, vr, len(data)) + data


@lru_cache(maxsize=64)
def around(sop_class_uid: str, size: int, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    """Return what stands before and after a SOP Instance UID of so many bytes in preamble and File Meta."""
    before = pack("<HH2sHLH", 2, 0x0001, b"OB", 0, 2, 0x0100)  # the version, 00H 01H
    before += _text(0x0002, b"UI", sop_class_uid)
    before += pack("<HH2sH", 2, 0x0003, b"UI", size + size % 2)
    after = bytes(size % 2) + _text(0x0010, b"UI", transfer_syntax_uid)
    after += _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
    after += _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
    length = pack("<HH2sHL", 2, 0, b"UL", 4, len(before) + size + len(after))
    return bytes(128) + b"DICM" + length + before, after


def ends_there(data: bytes | bytearray, end: int) -> bool:
    """Tell whether the File Meta Information of a file ends where its group length says.

    Otherwise elements of the data set would be cut off with it, or some of it be taken for data set.

    Parameters
    ----------
    data : bytes
        The file, from its preamble on, and at least :data:`LOOKED_AT` bytes of the data set.
    end : int
        Where the data set begins.
    """
    place = GROUP_LENGTH_END
    while place < end:
        if data[place : place + 2] != _GROUP:
            return False
        if data[place + 4 : place + 6] in _LONG:  # PS3.5 section 7.1.2
            place += 12 + int.from_bytes(data[place + 8 : place + 12], "little")
        else:
            place += 8 + int.from_bytes(data[place + 6 : place + 8], "little")
    # A deflated data set may begin with any two bytes, but hardly with a group, an element and a VR.
    more = data[end : end + 2] == _GROUP and bytes(data[end + 4 : end + 6]).isupper()
    return place == end and not more
