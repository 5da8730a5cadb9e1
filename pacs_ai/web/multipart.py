"""The parts of a ``multipart/related`` body (RFC 2387) as they come; none is ever whole in memory."""

from __future__ import annotations

import re
from email.message import Message
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

DICOM = "application/dicom"

_BOUNDARY = 200
# RFC 2046 section 5.1.1 allows 70 characters; Orthanc 1.10 sends 73.

_PREAMBLE = 8 * 1024
"""Bytes that may stand before the first boundary."""
_HEADERS = 16
_HEADER_BYTES = 4096


class MultipartError(ValueError):
    """A body is not what its header says; the message is fit for the sender."""


class MediaTypeError(ValueError):
    """A body is of a media type that is not taken (PS3.18 10.5.1)."""


class Parts(Protocol):
    """Who takes the parts; the three are called in turn for each."""

    def begin(self, media_type: str) -> None:
        """Begin a part; its media type is empty when it names none."""

    def write(self, piece: memoryview) -> None:
        """Take a piece of its body."""

    def end(self) -> None:
        """End it: it was whole."""


def boundary(content_type: str) -> bytes:
    """Return the boundary of a request's body from its Content-Type.

    Raises
    ------
    MediaTypeError
        When it is not ``multipart/related; type="application/dicom"``.
    MultipartError
        When it has no boundary, or none that is a boundary.
    """
    header = Message()
    header["Content-Type"] = content_type
    try:
        header.get_params()
    except ValueError as error:  # a parameter in parts whose numbers are none (RFC 2231)
        raise MultipartError("the Content-Type cannot be read") from error
    if header.get_content_type() != "multipart/related":
        raise MediaTypeError("Instances are taken as multipart/related")
    if str(header.get_param("type", DICOM)).lower() != DICOM:
        raise MediaTypeError(f'Instances are taken as multipart/related; type="{DICOM}"')
    found = header.get_param("boundary", "")
    if not isinstance(found, str) or not 0 < len(found) <= _BOUNDARY or not found.isascii():
        raise MultipartError(f"the Content-Type has no boundary of 1 to {_BOUNDARY} characters")
    return found.encode("ascii")


class Multipart:
    """A body that is being read: ``feed`` it as it comes, then ``close``.

    Parameters
    ----------
    limit : bytes
        The boundary.
    parts : Parts
        Who takes them.
    """

    def __init__(self, limit: bytes, parts: Parts) -> None:
        self._parts = parts
        self._name = bytearray()
        self._value = bytearray()
        self._media_type = ""
        self._ended = False
        self._before: bytearray | None = bytearray()
        self._first = re.compile(rb"(?:\A|\r?\n)--" + re.escape(limit) + rb"(?:[ \t]*\r\n|--)")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": lambda: parts.begin(self._media_type),
            "on_part_data": lambda data, start, end: parts.write(memoryview(data)[start:end]),
            "on_part_end": parts.end,
            "on_end": self._end,
        }
        self._parser = MultipartParser(
            limit, callbacks, max_header_count=_HEADERS, max_header_size=_HEADER_BYTES
        )

    def feed(self, data: bytes) -> None:
        """Take a piece of the body.

        Raises
        ------
        MultipartError
            When it is no multipart body of this boundary, or a part's header is too large.
        """
        try:
            if self._before is not None:
                data = self._after_preamble(self._before, data)
            self._parser.write(data)
        except FormParserError as error:
            raise MultipartError("the body is not multipart/related of its boundary") from error

    def _after_preamble(self, before: bytearray, data: bytes) -> bytes:
        """Return what the parser is for: the first boundary without padding, and what follows it.

        What stands before it is nobody's (RFC 2046 section 5.1.1), and the parser knows neither.
        """
        before += data
        first = self._first.search(before)
        end = len(before) if first is None else first.start()
        if end > _PREAMBLE:
            raise FormParserError("there is no boundary")
        if first is None:
            return b""
        self._before = None
        delimiter = first[0].strip(b"\r\n\t ")
        line_end = b"" if first[0].endswith(b"--") else b"\r\n"
        return delimiter + line_end + bytes(before[first.end() :])

    @property
    def ended(self) -> bool:
        """Whether the last boundary was there; what follows it is no part of the message (RFC 2046 5.1.1)."""
        return self._ended

    def close(self) -> None:
        """Say that nothing more comes.

        Raises
        ------
        MultipartError
            When the last boundary is missing: the body was cut off.
        """
        if not self._ended:
            raise MultipartError("the body ends before its last boundary")

    def _begin(self) -> None:
        self._media_type = ""

    def _header(self) -> None:
        if self._name.lower() == b"content-type":
            self._media_type = self._value.decode("latin-1").partition(";")[0].strip().lower()
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self._ended = True
