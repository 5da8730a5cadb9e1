"""The two DIMSE requests that this SCP answers, read from and written to their bytes.

A command set has a dozen elements, always Implicit VR Little Endian (PS3.7 section 6.3.1). The library
builds a data set, a message and a primitive for each, both ways; at hundreds of small Instances a second
that is most of the time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from pacs_ai.uids import is_uid

C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101

_CLASS, _FIELD, _MESSAGE, _ANSWERED = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET, _STATUS, _COMMENT, _INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000

_HEAD = Struct("<HHL")
"""Group, element and length before each value (PS3.5 section 7.1.3)."""
_USUAL_STORE = re.compile(
    rb"\0\0\0\0\x04\0\0\0.{4}"  # group length
    rb"\0\0\x02\0(.)\0\0\0([0-9.]+\0?)"  # Affected SOP Class UID, its length before it
    rb"\0\0\0\x01\x02\0\0\0\x01\0"  # Command Field
    rb"\0\0\x10\x01\x02\0\0\0(..)"  # Message ID
    rb"\0\0\0\x07\x02\0\0\0.."  # Priority
    rb"\0\0\0\x08\x02\0\0\0(..)"  # Command Data Set Type
    rb"\0\0\0\x10(.)\0\0\0([0-9.]+\0?)",  # Affected SOP Instance UID
    re.DOTALL,
)
"""A C-STORE-RQ with what every sender says, in the order of the tags, and nothing else."""
_GROUP_LENGTH = Struct("<HHLL")
_NUMBER, _MESSAGE_ID = Struct("<HHLH"), Struct("<H")

P_DATA_TF = 0x04
COMMAND, LAST = 1, 2
"""Bits of a message control header (PS3.8 Annex E.2)."""
_ITEM = 6
"""Bytes before a fragment: length, context and control header (PS3.8 section 9.3.5.1)."""
HEADS = Struct(">BxLLBB")
"""Type and length of a PDU, then length, context and control header of its first presentation data value."""


class CommandError(Exception):
    """The bytes are no command set of C-STORE or C-ECHO; the message says what is wrong, and no value."""


class Request(NamedTuple):
    """A C-STORE-RQ or C-ECHO-RQ (PS3.7 sections 9.3.1.1 and 9.3.5.1).

    A UID of a C-STORE that breaks the rules (PS3.5 section 9.1) is empty here: what came in its place
    reaches no name, no log and no answer. It exists in the field, so it ends one C-STORE and no more.
    """

    CommandField: int
    MessageID: int
    AffectedSOPClassUID: str
    AffectedSOPInstanceUID: str
    has_data_set: bool


def read(data: bytes | bytearray) -> Request:
    """Read a command set.

    Raises
    ------
    CommandError
        When it cannot be read, is of another service, or lacks what its service needs.
    """
    command = bytes(data)
    usual = _usual_store(command)
    if usual is not None:
        return usual
    elements = _elements(command)
    field = _number(elements, _FIELD)
    if field not in (C_STORE_RQ, C_ECHO_RQ):
        raise CommandError("a command came that is no C-STORE and no C-ECHO")
    sop_class = _uid(elements, _CLASS)
    if field == C_ECHO_RQ and not sop_class:
        raise CommandError("a C-ECHO came without a SOP Class UID")
    return Request(
        CommandField=field,
        MessageID=_number(elements, _MESSAGE),
        AffectedSOPClassUID=sop_class,
        AffectedSOPInstanceUID=_uid(elements, _INSTANCE) if field == C_STORE_RQ else "",
        has_data_set=_number(elements, _DATA_SET) != _NO_DATA_SET,
    )


def _usual_store(data: bytes) -> Request | None:
    """Read a usual C-STORE-RQ, in a third of the time that ``_elements`` takes; None for any other."""
    usual = _USUAL_STORE.fullmatch(data)
    if usual is None:
        return None
    size, sop_class, message, data_set, instance_size, instance = usual.groups()
    if size[0] != len(sop_class) or instance_size[0] != len(instance):
        return None
    return Request(
        C_STORE_RQ,
        int.from_bytes(message, "little"),
        _conforming(sop_class.rstrip(b"\0")),
        _conforming(instance.rstrip(b"\0")),
        int.from_bytes(data_set, "little") != _NO_DATA_SET,
    )


def _elements(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    head, place, end = _HEAD.size, 0, len(data)
    while place < end:
        start = place + head
        if start > end:
            raise CommandError("a command set is cut off")
        group, element, length = _HEAD.unpack_from(data, place)
        place = start + length
        if group != 0 or place > end:
            raise CommandError("a command set cannot be read")
        found[element] = data[start:place]
    return found


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise CommandError("a command set lacks what its service needs")
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ")
    if not value:
        raise CommandError("a command set lacks what its service needs")
    return _conforming(value)


def _conforming(value: bytes) -> str:
    return value.decode("ascii") if is_uid(value) else ""


def answer(
    request: Request, context_id: int, status: int, comment: str = "", *, maximum_length: int
) -> bytes:
    """Return the response as P-DATA-TF PDUs (PS3.7 sections 9.3.1.2 and 9.3.5.2).

    Parameters
    ----------
    request : Request
    context_id : int
        Presentation context in which it came.
    status : int
    comment : str
        Error Comment (0000,0902); left out when empty.
    maximum_length : int
        Longest variable field of a PDU that the peer takes; 0 for any (PS3.8 Annex D.1).
    """
    instance = request.AffectedSOPInstanceUID
    before, after, size = _around(
        request.CommandField, request.AffectedSOPClassUID, status, comment, len(instance)
    )
    command = before + _MESSAGE_ID.pack(request.MessageID) + after + instance.encode("ascii")
    command = command.ljust(size, b"\0")
    if not maximum_length or size + _ITEM <= maximum_length:
        return _in_pdu(command, context_id, COMMAND | LAST)
    return _in_pdus(command, context_id, max(maximum_length - _ITEM, 1))


@lru_cache(maxsize=64)
def _around(
    field: int, sop_class: str, status: int, comment: str, instance: int
) -> tuple[bytes, bytes, int]:
    """Return what stands before the Message ID of an answer, what between it and the SOP Instance UID.

    And how long the command set is, for a SOP Instance UID of so many characters.
    """
    before = _text(_CLASS, sop_class) + _NUMBER.pack(0, _FIELD, 2, field | _RESPONSE)
    before += _HEAD.pack(0, _ANSWERED, 2)
    after = _NUMBER.pack(0, _DATA_SET, 2, _NO_DATA_SET) + _NUMBER.pack(0, _STATUS, 2, status)
    after += _text(_COMMENT, comment[:64], padding=b" ")
    if instance:
        after += _HEAD.pack(0, _INSTANCE, instance + instance % 2)
    size = len(before) + _MESSAGE_ID.size + len(after) + instance + instance % 2
    return _GROUP_LENGTH.pack(0, 0, 4, size) + before, after, _GROUP_LENGTH.size + size


def _text(element: int, value: str, padding: bytes = b"\0") -> bytes:
    """Return an element of text; nothing when it is empty."""
    if not value:
        return b""
    data = value.encode("ascii", errors="replace")
    if len(data) % 2:
        data += padding
    return _HEAD.pack(0, element, len(data)) + data


def _in_pdus(command: bytes, context_id: int, longest: int) -> bytes:
    last = len(command) - longest
    return b"".join(
        _in_pdu(
            command[start : start + longest], context_id, COMMAND | (LAST if start >= last else 0)
        )
        for start in range(0, len(command), longest)
    )


def _in_pdu(fragment: bytes, context_id: int, control: int) -> bytes:
    size = len(fragment)
    return HEADS.pack(P_DATA_TF, size + _ITEM, size + 2, context_id, control) + fragment
