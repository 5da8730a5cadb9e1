"""A peer that rejects every association, and stays until its answer was read.

The library's own acceptor may hang up before its rejection has left, so that a test of it is a race.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CALLING_NOT_RECOGNISED = b"\x01\x01\x03"
CALLED_NOT_RECOGNISED = b"\x01\x01\x07"


@contextmanager
def rejecting(reason: bytes) -> Iterator[int]:
    """Answer one association by an A-ASSOCIATE-RJ (PS3.8 9.3.4) with result, source and reason."""

    def reject() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            connection.recv(65_536)
            connection.sendall(b"\x03\x00\x00\x00\x00\x04\x00" + reason)
            connection.recv(1)  # until the other side has closed

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=reject)
        thread.start()
        yield server.getsockname()[1]
        thread.join()
