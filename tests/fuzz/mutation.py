"""Seeded damage: bytes of a known layout are changed the way that faults and hostile peers change them.

Every case is made from ``(seed, number)`` alone, so that a finding is found again by its two numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from struct import pack, unpack_from

Span = tuple[int, int]

VRS = tuple(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV"
    b" ZZ".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PDU_TYPES = tuple(bytes([kind]) for kind in (*range(9), 0x55, 0xFF))
_ITEM_TYPES = tuple(bytes([kind]) for kind in (0x10, 0x20, 0x30, 0x40, *range(0x50, 0x5A), 0))
_CONTROLS = tuple(bytes([control]) for control in (0, 1, 2, 3, 4, 0xFF))
_CONTEXTS = tuple(bytes([context]) for context in (0, 1, 2, 3, 5, 255))


@dataclass(slots=True)
class Layout:
    """Where the parts of some bytes stand.

    Attributes
    ----------
    pieces : list of (int, int)
        What can be left out, doubled, moved and put elsewhere: PDUs, items, elements.
    lengths : list of (int, int, str)
        Length fields: place, size, byte order.
    kinds : list of (int, tuple of bytes)
        Fields that say what follows: place, and what else could stand there.
    explicit : bool or None
        Whether elements have a VR; None where the bytes are not a data set.
    """

    pieces: list[Span] = field(default_factory=list)
    lengths: list[tuple[int, int, str]] = field(default_factory=list)
    kinds: list[tuple[int, tuple[bytes, ...]]] = field(default_factory=list)
    explicit: bool | None = None


Read = Callable[[bytes], Layout]


# ---------------------------------------------------------------------- layouts


def pdus(data: bytes) -> Layout:
    """Find PDUs, the items of A-ASSOCIATE-RQ and presentation data values (PS3.8 section 9.3)."""
    found = Layout()
    place = 0
    while place + 6 <= len(data):
        end = min(place + 6 + int(unpack_from(">L", data, place + 2)[0]), len(data))
        found.pieces.append((place, end))
        found.lengths.append((place + 2, 4, "big"))
        found.kinds.append((place, _PDU_TYPES))
        if data[place] == 0x01:
            _items(data, place + 74, end, found)
        elif data[place] == 0x04:
            _values(data, place + 6, end, found)
        place = end
    return found


def _items(data: bytes, place: int, end: int, found: Layout) -> None:
    while place + 4 <= end:
        stop = min(place + 4 + int(unpack_from(">H", data, place + 2)[0]), end)
        found.pieces.append((place, stop))
        found.lengths.append((place + 2, 2, "big"))
        found.kinds.append((place, _ITEM_TYPES))
        if data[place] == 0x20:
            found.kinds.append((place + 4, _CONTEXTS))
            _items(data, place + 8, stop, found)
        elif data[place] == 0x50:
            _items(data, place + 4, stop, found)
        place = stop


def _values(data: bytes, place: int, end: int, found: Layout) -> None:
    while place + 6 <= end:
        stop = min(place + 4 + int(unpack_from(">L", data, place)[0]), end)
        found.pieces.append((place, stop))
        found.lengths.append((place, 4, "big"))
        found.kinds += [(place + 4, _CONTEXTS), (place + 5, _CONTROLS)]
        if data[place + 5] & 1:
            _elements(data, place + 6, stop, found, explicit=False, order="little")
        place = max(stop, place + 1)


def explicit(data: bytes) -> Layout:
    """Find the elements of a data set in Explicit VR Little Endian (PS3.5 section 7.1.2)."""
    found = Layout(explicit=True)
    _elements(data, 0, len(data), found, explicit=True, order="little")
    return found


def implicit(data: bytes) -> Layout:
    """Find the elements of a data set in Implicit VR Little Endian (PS3.5 section 7.1.3)."""
    found = Layout(explicit=False)
    _elements(data, 0, len(data), found, explicit=False, order="little")
    return found


def big_endian(data: bytes) -> Layout:
    """Find the elements of a data set in Explicit VR Big Endian."""
    found = Layout(explicit=True)
    _elements(data, 0, len(data), found, explicit=True, order="big")
    return found


def file(data: bytes) -> Layout:
    """Find the elements of a DICOM file in Explicit VR Little Endian, File Meta included."""
    found = Layout(explicit=True)
    _elements(data, 132, len(data), found, explicit=True, order="little")
    return found


def opaque(data: bytes) -> Layout:
    """Find nothing: for what is compressed."""
    return Layout()


def _elements(
    data: bytes, place: int, end: int, found: Layout, *, explicit: bool, order: str
) -> None:
    mark = "<" if order == "little" else ">"
    while place + 8 <= end:
        group, element = unpack_from(f"{mark}HH", data, place)
        tag = group << 16 | element
        vr = data[place + 4 : place + 6]
        if not explicit or group == 0xFFFE:
            at, size = place + 4, 4
        elif vr in _LONG_VRS:
            at, size = place + 8, 4
        else:
            at, size = place + 6, 2
        if at + size > end:
            return
        length = int.from_bytes(data[at : at + size], "little" if order == "little" else "big")
        found.lengths.append((at, size, order))
        if explicit and group != 0xFFFE:
            found.kinds.append((place + 4, VRS))
        # What is inside sequences and items follows as if it stood at the same level.
        inside = tag in (_ITEM, _ITEM_END, _SEQUENCE_END) or vr == b"SQ" or length == 0xFFFFFFFF
        stop = at + size if inside else min(at + size + length, end)
        found.pieces.append((place, stop))
        place = stop


# ---------------------------------------------------------------------- damage


def damaged(rng: Random, data: bytes, read: Read, donors: Sequence[bytes]) -> bytes:
    """Return bytes with one to four faults.

    Parameters
    ----------
    rng : Random
    data : bytes
    read : callable
        Finds the layout of such bytes.
    donors : sequence of bytes
        Others of the corpus, for splices.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not data:
            break
        data = rng.choice(_FAULTS)(rng, data, read(data), donors)
    return data


Fault = Callable[[Random, bytes, Layout, Sequence[bytes]], bytes]


def _flip(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    place, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 16))
    filling = rng.choice((b"\x00" * size, b"\xff" * size, rng.randbytes(size)))
    return data[:place] + filling + data[place + size :]


def _cut(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def _insert(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 7, 200))) + data[place:]


def _lie(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if not layout.lengths:
        return _flip(rng, data, layout, donors)
    place, size, order = rng.choice(layout.lengths)
    most = 256**size - 1
    told = int.from_bytes(data[place : place + size], "little" if order == "little" else "big")
    lie = rng.choice(
        (
            0,
            1,
            told + 1,
            told - 1,
            told + 2,
            told * 2,
            most,
            most - 1,
            most // 2,
            rng.randrange(most),
        )
    )
    field = (lie % (most + 1)).to_bytes(size, "little" if order == "little" else "big")
    return data[:place] + field + data[place + size :]


def _retype(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if not layout.kinds:
        return _flip(rng, data, layout, donors)
    place, choices = rng.choice(layout.kinds)
    other = rng.choice(choices)
    return data[:place] + other + data[place + len(other) :]


def _drop(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if not layout.pieces:
        return _cut(rng, data, layout, donors)
    start, end = rng.choice(layout.pieces)
    return data[:start] + data[end:]


def _repeat(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if not layout.pieces:
        return _insert(rng, data, layout, donors)
    start, end = rng.choice(layout.pieces)
    times = min(rng.choice((1, 1, 2, 40, 400)), 20_000 // (end - start + 1))
    return data[:end] + data[start:end] * times + data[end:]


def _move(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if not layout.pieces:
        return _flip(rng, data, layout, donors)
    start, end = rng.choice(layout.pieces)
    rest = data[:start] + data[end:]
    to = min(rng.choice(layout.pieces)[0], len(rest))
    return rest[:to] + data[start:end] + rest[to:]


def _splice(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    donor = rng.choice(donors)
    where = rng.randrange(len(donor) + 1)
    place = rng.choice(layout.pieces)[0] if layout.pieces else rng.randrange(len(data) + 1)
    if rng.random() < 0.5:
        return data[:place] + donor[where:]
    return data[:place] + donor[where : where + rng.choice((8, 64, 512))] + data[place:]


def _nest(rng: Random, data: bytes, layout: Layout, donors: Sequence[bytes]) -> bytes:
    if layout.explicit is None or not layout.pieces:
        return _repeat(rng, data, layout, donors)
    depth = rng.choice((1, 2, 33, 400, 2000))
    tag = pack("<HH", 0x0008, 0x1140)  # ReferencedImageSequence
    head = tag + (b"SQ\0\0" if layout.explicit else b"") + b"\xff" * 4
    opening = head + pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    start, end = rng.choice(layout.pieces)
    whole = rng.random() < 0.7  # otherwise nothing that was opened is closed
    inside = opening * depth + data[start:end] + (closing * depth if whole else b"")
    return data[:start] + inside + data[end:]


_FAULTS: tuple[Fault, ...] = (
    *(_flip, _flip, _overwrite, _cut, _insert, _lie, _lie, _retype),
    *(_drop, _repeat, _move, _splice, _nest),
)
