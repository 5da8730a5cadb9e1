"""What is wrong with a PDU, before the library or the spool sees what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_RQ

from listener.door import HEADER

_ITEM = Struct(">LBB")
"""Length, context and control header of a presentation data value (PS3.8 section 9.3.5.1)."""


MOST_CONTEXTS = 128
_FIXED, _CONTEXT = 68, 0x20
"""Bytes before the items of an A-ASSOCIATE-RQ; the type of a presentation context (PS3.8 section 9.3.2)."""


_TITLES = slice(4, 36)
_USER = 0x50
_ITEMS = frozenset({0x10, _CONTEXT, _USER})
"""Application context, presentation contexts, user information."""
_USER_ITEMS = frozenset(range(0x51, 0x59))
"""Sub-items of user information that a requestor may send (PS3.7 Annex D.3.3, PS3.8 Annex D.1)."""
_VERSION_NAME, _BACKSLASH = 0x55, 0x5C


class ProtocolError(Exception):
    """What the peer sent is no DIMSE message that is taken here: the association is aborted."""


def check_request(pdu: Any) -> None:
    """Refuse an A-ASSOCIATE-RQ that the library would stumble over while it negotiates or answers.

    Its thread would end, and the connection would be neither answered nor closed.

    Raises
    ------
    ProtocolError
        When it is one.
    """
    if not isinstance(pdu, A_ASSOCIATE_RQ):
        return
    request = pdu.to_primitive()
    for context in request.presentation_context_definition_list:
        if not context.abstract_syntax or not context.transfer_syntax:
            raise ProtocolError("a presentation context lacks its abstract or transfer syntax")
    maximum = request.maximum_length_received
    if maximum is None or 0 < maximum <= HEADER:  # no length, or no room for one byte of an answer
        raise ProtocolError("the Maximum Length of an A-ASSOCIATE-RQ is missing or too short")


def tidied(body: bytes) -> bytes:
    """Return the body of an A-ASSOCIATE-RQ without what the standard wants ignored, and the library refuses.

    Items of other types are skipped (PS3.8 section 9.3.1). AE titles are padded with NUL, and
    Implementation Version Names are too long or in another alphabet, in the field: the former are read as if
    padded with spaces, the latter are left out. Nothing depends on them.

    Raises
    ------
    ProtocolError
        When an item is cut off, or there are more presentation contexts than odd numbers of one byte (PS3.8
        section 9.3.2.2): to decode one takes the library a millisecond for some twenty, whoever sent it.
    """
    titles = body[_TITLES].replace(b"\0", b" ")
    items = [*_items(body[_FIXED:])]
    if sum(kind == _CONTEXT for kind, _ in items) > MOST_CONTEXTS:
        raise ProtocolError("an A-ASSOCIATE-RQ has more presentation contexts than there can be")
    kept = []
    for kind, value in items:
        if kind == _USER:
            inner = (_item(each, it) for each, it in _items(value) if _is_kept(each, it))
            kept.append(_item(kind, b"".join(inner)))
        elif kind in _ITEMS:
            kept.append(_item(kind, value))
    return body[: _TITLES.start] + titles + body[_TITLES.stop : _FIXED] + b"".join(kept)


def _is_kept(kind: int, value: bytes) -> bool:
    if kind == _VERSION_NAME:
        return len(value) <= 16 and all(0x20 <= one < 0x7F and one != _BACKSLASH for one in value)
    return kind in _USER_ITEMS


def _item(kind: int, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each item.

    Raises
    ------
    ProtocolError
        When one is cut off.
    """
    place = 0
    while place < len(data):
        start = place + 4
        end = start + int.from_bytes(data[place + 2 : start], "big")
        if len(data) < end:
            raise ProtocolError("an item of an A-ASSOCIATE-RQ is cut off")
        yield data[place], data[start:end]
        place = end


def fragments(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield context, control header and fragment of each presentation data value (PS3.8 9.3.5.1).

    Raises
    ------
    ProtocolError
        When one is cut off, or longer than its PDU.
    """
    while body:
        if len(body) < HEADER:
            raise ProtocolError("a presentation data value is cut off")
        length, context_id, control = _ITEM.unpack_from(body)
        if not 2 <= length <= len(body) - 4:
            raise ProtocolError("a presentation data value is longer than its PDU")
        yield context_id, control, body[HEADER : 4 + length]
        body = body[4 + length :]
