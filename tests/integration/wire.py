"""DICOM on a bare socket, so that a test can send what no library would."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import pack, unpack

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
COMMAND, LAST = 1, 2
ACCEPTED, REJECTED, ABORTED = 0x02, 0x03, 0x07
CALLING_NOT_RECOGNISED = (1, 1, 3)
CALLED_NOT_RECOGNISED = (1, 1, 7)
"""Result, source and reason of an A-ASSOCIATE-RJ: permanent, service user (PS3.8 section 9.3.4)."""

Context = tuple[int, str, str]


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU (PS3.8 section 9.3.1)."""
    return pack(">BBL", kind, 0, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return pack(">BBH", kind, 0, len(body)) + body


def associate(calling: str, called: str, contexts: Sequence[Context]) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 section 9.3.2)."""
    body = b"\x00\x01\x00\x00" + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract, transfer in contexts:
        syntaxes = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        body += _item(0x20, bytes([number, 0, 0, 0]) + syntaxes)
    body += _item(0x50, _item(0x51, pack(">L", 16384)) + _item(0x52, b"1.2.3.4"))
    return pdu(0x01, body)


def values(context: int, control: int, data: bytes) -> bytes:
    """Return a P-DATA-TF with one presentation data value (PS3.8 section 9.3.5)."""
    return pdu(0x04, pack(">LBB", len(data) + 2, context, control) + data)


def command(field: int, *, data_set: bool, **uids: str) -> bytes:
    """Return a command set in Implicit VR Little Endian (PS3.7 section 6.3)."""
    elements = [
        (0x0002, _uid(uids["sop_class"])),
        (0x0100, pack("<H", field)),
        (0x0110, pack("<H", 1)),
        *([(0x0700, pack("<H", 0))] if field == 0x0001 else []),
        (0x0800, pack("<H", 0x0001 if data_set else 0x0101)),
        *([(0x1000, _uid(uids["sop_instance"]))] if "sop_instance" in uids else []),
    ]
    body = b"".join(pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    return uid.encode() + b"\x00" * (len(uid) % 2)


def exactly(sock: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the listener closed the connection")
        data += piece
    return data


def read(sock: socket.socket) -> tuple[int, bytes]:
    """Read one PDU; return its type and body."""
    kind, _, length = unpack(">BBL", exactly(sock, 6))
    return kind, exactly(sock, length)


def status(body: bytes) -> int:
    """Return the Status of a response that came in one P-DATA-TF."""
    place = body.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int(unpack("<H", body[place + 8 : place + 10])[0])


def connect(
    port: int,
    source: str = "127.0.0.1",
    seconds: float = 5,
    tls: ssl.SSLContext | None = None,
) -> socket.socket:
    """Connect from an address of this machine, with TLS where a context is given."""
    sock = socket.create_connection(("127.0.0.1", port), seconds, source_address=(source, 0))
    return sock if tls is None else tls.wrap_socket(sock, server_hostname="127.0.0.1")


@contextmanager
def associated(
    port: int,
    calling: str,
    called: str,
    contexts: Sequence[Context],
    source: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[socket.socket]:
    """Open an association for the length of the block; it is not released."""
    with connect(port, source, tls=tls) as sock:
        sock.sendall(associate(calling, called, contexts))
        kind, body = read(sock)
        if kind != ACCEPTED:
            raise ConnectionError(
                f"PDU 0x{kind:02X} came in place of an A-ASSOCIATE-AC: {body.hex()}"
            )
        yield sock


def rejection(
    port: int, calling: str, called: str, tls: ssl.SSLContext | None = None
) -> tuple[int, int, int]:
    """Return result, source and reason of the A-ASSOCIATE-RJ that comes back (PS3.8 section 9.3.4).

    A pynetdicom requestor forgets a rejection whose connection ended before its own thread woke.
    """
    with connect(port, tls=tls) as sock:
        sock.sendall(associate(calling, called, [(1, VERIFICATION, IMPLICIT)]))
        kind, body = read(sock)
        if kind != REJECTED:
            raise ConnectionError(f"PDU 0x{kind:02X} came in place of an A-ASSOCIATE-RJ")
        return body[1], body[2], body[3]


def echo(port: int, calling: str, called: str, tls: ssl.SSLContext | None = None) -> None:
    """Ask and get one C-ECHO over an association of its own, released as it should be."""
    contexts = [(1, VERIFICATION, IMPLICIT)]
    with associated(port, calling, called, contexts, tls=tls) as sock:
        request = command(0x0030, data_set=False, sop_class=VERIFICATION)
        sock.sendall(values(1, COMMAND | LAST, request))
        kind, body = read(sock)
        if kind != 0x04 or status(body) != 0x0000:
            raise ConnectionError(f"PDU 0x{kind:02X} came in place of success")
        sock.sendall(pdu(0x05, bytes(4)))
        kind, _ = read(sock)
        if kind != 0x06:
            raise ConnectionError(f"PDU 0x{kind:02X} came in place of an A-RELEASE-RP")
