"""What the listener is compared with: a bare loop, and pynetdicom as it comes.

``python -m benchmarks.receivers bare PORT FOLDER``: the least that a Storage SCP in Python can do and still
keep its word. It accepts whatever is proposed, hashes each data set, writes it to a file and syncs it before
it answers. ``stock``: pynetdicom without settings; its handler writes a file and does not sync.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from struct import pack, unpack

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event

_VERIFICATION = "1.2.840.10008.1.1"
_CLASS, _INSTANCE, _MESSAGE = 0x0002, 0x1000, 0x0110


def bare(port: int, folder: Path) -> None:
    """Listen with a bare loop until the process is ended."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        while True:
            peer, _ = server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_association, args=(peer, folder), daemon=True).start()


def _association(peer: socket.socket, folder: Path) -> None:
    with peer, suppress(ConnectionError):
        kind, body = _pdu(peer)
        peer.sendall(_accept(body))
        command = b""
        file, hashed, path = None, sha256(), folder
        while True:
            kind, body = _pdu(peer)
            if kind != 0x04:
                peer.sendall(b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00")
                return
            for context, control, fragment in _values(memoryview(body)):
                if control & 1:
                    command += fragment
                    continue
                if file is None:
                    path = folder / f"{_element(command, _INSTANCE).decode().strip(chr(0))}.dcm"
                    file, hashed = path.open("wb", buffering=0), sha256()
                hashed.update(fragment)
                file.write(fragment)
                if control & 2:
                    os.fsync(file.fileno())
                    file.close()
                    peer.sendall(_answer(context, command))
                    file, command = None, b""


def _pdu(peer: socket.socket) -> tuple[int, bytearray]:
    head = _exactly(peer, 6)
    return head[0], _exactly(peer, int.from_bytes(head[2:], "big"))


def _exactly(peer: socket.socket, size: int) -> bytearray:
    data, got = bytearray(size), 0
    view = memoryview(data)
    while got < size:
        count = peer.recv_into(view[got:])
        if count == 0:
            raise ConnectionError
        got += count
    return data


def _values(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    while body:
        (length,) = unpack(">L", body[:4])
        yield body[4], body[5], body[6 : 4 + length]
        body = body[4 + length :]


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        kind, _, length = unpack(">BBH", body[:4])
        yield kind, body[4 : 4 + length]
        body = body[4 + length :]


def _item(kind: int, body: bytes) -> bytes:
    return pack(">BBH", kind, 0, len(body)) + body


def _accept(request: bytearray) -> bytes:
    """Return an A-ASSOCIATE-AC that takes the first transfer syntax of each context."""
    body = bytes(request[:68]) + _item(0x10, b"1.2.840.10008.3.1.1.1")
    for kind, item in _items(bytes(request[68:])):
        if kind == 0x20:
            syntax = next(value for kind, value in _items(item[4:]) if kind == 0x40)
            body += _item(0x21, bytes([item[0], 0, 0, 0]) + _item(0x40, syntax))
    body += _item(0x50, _item(0x51, pack(">L", 131_072)) + _item(0x52, b"1.2.3.4"))
    return pack(">BBL", 2, 0, len(body)) + body


def _element(command: bytes, tag: int) -> bytes:
    place = 0
    while True:
        found, length = unpack("<HL", command[place + 2 : place + 8])
        if found == tag:
            return command[place + 8 : place + 8 + length]
        place += 8 + length


def _answer(context: int, command: bytes) -> bytes:
    elements = [
        (0x0002, _element(command, _CLASS)),
        (0x0100, b"\x01\x80"),
        (0x0120, _element(command, _MESSAGE)),
        (0x0800, b"\x01\x01"),
        (0x0900, b"\x00\x00"),
        (0x1000, _element(command, _INSTANCE)),
    ]
    body = b"".join(pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    body = pack("<HHLL", 0, 0, 4, len(body)) + body
    return pack(">BBLLBB", 4, 0, len(body) + 6, len(body) + 2, context, 3) + body


def stock(port: int, folder: Path) -> None:
    """Listen with pynetdicom as it comes until the process is ended."""

    def store(event: Event) -> int:
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE("PACSAI")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(_VERIFICATION)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    {"bare": bare, "stock": stock}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
