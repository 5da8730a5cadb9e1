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


def check_items(body: memoryview) -> None:
    """Refuse an A-ASSOCIATE-RQ with more items than the standard has numbers for, before it is decoded.

    To decode one takes the library a millisecond for some twenty contexts, whoever sent it.

    Raises
    ------
    ProtocolError
        When it has more presentation contexts than there are odd numbers of one byte (PS3.8 section 9.3.2.2).
    """
    place, contexts = _FIXED, 0
    while place + 4 <= len(body):
        contexts += body[place] == _CONTEXT
        place += 4 + int.from_bytes(body[place + 2 : place + 4], "big")
    if contexts > MOST_CONTEXTS:
        raise ProtocolError("an A-ASSOCIATE-RQ has more presentation contexts than there can be")


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
