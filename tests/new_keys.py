"""A TLS 1.3 client that asks for nothing but new keys, as Python's own cannot (RFC 8446 section 4.6.3)."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
from ctypes import c_char_p, c_int, c_void_p

_ROOM = 2**16
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "TLS_client_method": (c_void_p, []),
    "SSL_CTX_new": (c_void_p, [c_void_p]),
    "SSL_CTX_free": (None, [c_void_p]),
    "SSL_new": (c_void_p, [c_void_p]),
    "SSL_free": (None, [c_void_p]),
    "SSL_set_bio": (None, [c_void_p, c_void_p, c_void_p]),
    "SSL_set_connect_state": (None, [c_void_p]),
    "SSL_do_handshake": (c_int, [c_void_p]),
    "SSL_key_update": (c_int, [c_void_p, c_int]),
    "SSL_write": (c_int, [c_void_p, c_char_p, c_int]),
    "BIO_new": (c_void_p, [c_void_p]),
    "BIO_s_mem": (c_void_p, []),
    "BIO_read": (c_int, [c_void_p, c_char_p, c_int]),
    "BIO_write": (c_int, [c_void_p, c_char_p, c_int]),
}


def _openssl() -> ctypes.CDLL:
    found = ctypes.util.find_library("ssl")
    assert found is not None, "OpenSSL's library is missing: install libssl3"
    library = ctypes.CDLL(found)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Client:
    """A connection to a port of this machine, after its handshake."""

    def __init__(self, port: int) -> None:
        self._openssl = _openssl()
        self._room = ctypes.create_string_buffer(_ROOM)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._context = self._openssl.SSL_CTX_new(self._openssl.TLS_client_method())
        self._tls = self._openssl.SSL_new(self._context)
        self._incoming, self._outgoing = self._new_bio(), self._new_bio()
        self._openssl.SSL_set_bio(self._tls, self._incoming, self._outgoing)
        self._openssl.SSL_set_connect_state(self._tls)
        while self._openssl.SSL_do_handshake(self._tls) != 1:
            self.socket.sendall(self._written())
            came = self.socket.recv(65_536)
            assert came, "the handshake failed"
            self._openssl.BIO_write(self._incoming, came, len(came))
        self.socket.sendall(self._written())

    def _new_bio(self) -> int:
        return int(self._openssl.BIO_new(self._openssl.BIO_s_mem()))

    def _written(self) -> bytes:
        count = self._openssl.BIO_read(self._outgoing, self._room, _ROOM)
        return self._room[: max(count, 0)]

    def records(self, data: bytes) -> bytes:
        """Return what carries data of the application."""
        self._openssl.SSL_write(self._tls, data, len(data))
        return self._written()

    def new_keys(self, count: int, *, answered: bool) -> bytes:
        """Return as many updates of the keys; the last byte of data comes with them."""
        whole = bytearray()
        for _ in range(count):
            assert self._openssl.SSL_key_update(self._tls, int(answered)) == 1
            assert self._openssl.SSL_do_handshake(self._tls) == 1
            whole += self._written()
        return bytes(whole)

    def close(self) -> None:
        """End, without a word."""
        self.socket.close()
        self._openssl.SSL_free(self._tls)
        self._openssl.SSL_CTX_free(self._context)
