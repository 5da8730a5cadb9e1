"""The one maker of HTTP Sessions: https or loopback, no redirects, no proxies, no retries.

Whoever asks another server does it through :func:`session` and, where the whole request must end
in a given time, :func:`exchange`. What may be tried again is for the ledger to decide, never for
a library.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pacs_ai.errors import PacsAiError, TransientError

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
"""Longest silence between two bytes where the caller sets no deadline."""

_CHUNK = 64 * 1024
_SILENCE = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)


class AddressError(PacsAiError):
    """An address that the gateway does not talk to: not https and not loopback."""


class AnswerError(PacsAiError):
    """What came back is not an answer that may be read: too many bytes, or compressed unasked."""


class UnreachableError(TransientError):
    """No whole answer came: refused, cut off, or not in time."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer.

    Attributes
    ----------
    status : int
        HTTP status code; a redirect is an answer like any other and is not followed.
    headers : mapping of str to str
        By name, whatever its case.
    body : bytes
        At most as many as the caller allowed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class CertificateError(PacsAiError):
    """A server's certificate is not one that the gateway takes; the message says why and what to do."""


def handshake(host: str, port: int, *, seconds: float = CONNECT_SECONDS) -> None:
    """Connect with TLS as a Session does, and verify the certificate; nothing is sent.

    Raises
    ------
    CertificateError
        When it is not to be trusted, or there is no TLS.
    UnreachableError
        When nothing answers.
    """
    context = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
    try:
        with (
            socket.create_connection((host, port), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        known = _DOUBTS.get(error.verify_code)
        said = known or f"is refused ({error.verify_message}): its operator must replace it"
        raise CertificateError(f"its certificate {said}") from error
    except ssl.SSLError as error:
        raise CertificateError(
            "no TLS of version 1.2 or later there: check the port, or let its operator turn it on"
        ) from error
    except OSError as error:
        raise UnreachableError(f"no answer from {host}") from error


_UNKNOWN = (
    "is of an authority that is not known here: its operator must install one of a public authority, "
    "with the certificates between"
)
_NAME = "is for another name: correct the host in the URL, or let its operator add this name"
# By X509_V_ERR_… of OpenSSL (x509_vfy.h).
_DOUBTS = {
    9: "is not valid yet: check this machine's clock, or let its operator replace it",
    10: "has ended: its operator must renew it",
    **dict.fromkeys((18, 19, 20, 21), _UNKNOWN),
    **dict.fromkeys((62, 64), _NAME),
}


def session() -> requests.Session:
    """Return a Session that goes nowhere by itself.

    ``trust_env`` is off (no proxy, no ``.netrc`` from the environment), redirects are not
    followed, nothing is sent twice, plain http goes to loopback only, and a request without a
    time-out of its own has 5 s to connect, 60 s to send its body, and 60 s between bytes.
    """
    return _mounted(_Session())


def _mounted(made: _Session) -> requests.Session:
    made.trust_env = False
    made.headers["User-Agent"] = "PACS-AI"
    made.headers["Accept-Encoding"] = "identity"
    adapter = _Adapter()
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made


def bounded_session(*, deadline: timedelta, body_limit: int) -> requests.Session:
    """Return a Session for a library that sends its requests itself; each one is bounded.

    As :func:`session`; besides, every request ends within ``deadline``, its answer has at most
    ``body_limit`` bytes, and only success (2xx) is an answer.

    Raises
    ------
    UnreachableError, AnswerError, AddressError
        From every method of the Session; as :func:`exchange`, and UnreachableError for a status that
        is not 2xx.
    """
    return _mounted(_BoundedSession(deadline, body_limit))


def exchange(
    using: requests.Session,
    method: str,
    url: str,
    *,
    deadline: timedelta,
    body_limit: int,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
) -> Response:
    """Send one request and read its whole answer, or none of it.

    Parameters
    ----------
    using : requests.Session
        Made by :func:`session`.
    method, url : str
        What to ask, and where; the URL comes from settings only.
    deadline : timedelta
        Time for all of it: connect, send, wait, read. When it is over the connection is shut,
        however busily the other side drips bytes.
    body_limit : int
        Most bytes of body that are read.
    headers : mapping, optional
    data : bytes, optional
        The body.

    Raises
    ------
    UnreachableError
        When no whole answer came in time.
    AnswerError
        When the body is longer than ``body_limit`` or compressed.
    AddressError
        When the URL is neither https nor loopback.
    """
    host = urlsplit(url).hostname or ""
    seconds = deadline.total_seconds()
    with _Watch(seconds) as watch:
        try:
            with using.request(
                method,
                url,
                headers=headers,
                data=data,
                timeout=(min(CONNECT_SECONDS, seconds), seconds),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = _read(answer, body_limit, host)
                if watch.over:
                    raise UnreachableError(_too_late(host, seconds))
                return Response(answer.status_code, answer.headers, body)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # The cause is named by its type: its text may carry the URL's query.
            raise UnreachableError(_why_not(host, seconds, watch, error)) from None


def _why_not(host: str, seconds: float, watch: _Watch, error: Exception) -> str:
    # Silence of the whole time ends the read and the watch at once: either may be first.
    if watch.over or isinstance(error, _SILENCE):
        return _too_late(host, seconds)
    return f"no answer from {host} ({type(error).__name__})"


def _too_late(host: str, seconds: float) -> str:
    return f"{host} gave no whole answer within {seconds:g} s"


def _read(answer: requests.Response, limit: int, host: str) -> bytes:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise AnswerError(f"{host} compressed its answer although it was not asked to")
    parts: list[bytes] = []
    size = 0
    for part in answer.raw.stream(_CHUNK, decode_content=False):
        size += len(part)
        if size > limit:
            raise AnswerError(f"{host} answered more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # An address comes from settings, never from an answer.
        return None


class _BoundedSession(_Session):
    def __init__(self, deadline: timedelta, body_limit: int) -> None:
        super().__init__()
        self._seconds = deadline.total_seconds()
        self._body_limit = body_limit

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        host = urlsplit(request.url or "").hostname or ""
        kwargs["stream"] = True  # the body is read here, and not further than it may go
        kwargs["timeout"] = (min(CONNECT_SECONDS, self._seconds), self._seconds)
        with _Watch(self._seconds) as watch:
            try:
                with super().send(request, **kwargs) as answer:
                    answer._content = _read(answer, self._body_limit, host)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise UnreachableError(_why_not(host, self._seconds, watch, error)) from None
            if watch.over:
                raise UnreachableError(_too_late(host, self._seconds))
        if not answer.ok or answer.is_redirect:
            raise UnreachableError(f"{host} answered HTTP status {answer.status_code}")
        return answer


class _Watch:
    """Shuts the sockets of this thread's exchange when its time is over."""

    _current = threading.local()

    def __init__(self, seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self.over = False

    @classmethod
    def current(cls) -> _Watch | None:
        found: _Watch | None = getattr(cls._current, "watch", None)
        return found

    def __enter__(self) -> _Watch:
        self._current.watch = self
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._current.watch = None
        self._timer.cancel()
        with self._lock:
            self._sockets.clear()

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.append(opened)
            if self.over:
                _shut(opened)

    def _end(self) -> None:
        with self._lock:
            self.over = True
            for opened in self._sockets:
                _shut(opened)


def _shut(opened: socket.socket) -> None:
    # The plain socket's method, also under TLS: the reader must see an end, not a broken object.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class _WatchedHTTP(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        watch = _Watch.current()
        if watch is not None and self.sock is not None:
            # Not before: TLS takes over the socket that it was connected with.
            watch.add(self.sock)
        # urllib3 would send the whole body in the time to connect.
        self.timeout = READ_SECONDS if watch is None else None
        super().request(*args, **kwargs)


class _WatchedHTTPS(_WatchedHTTP, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class _Adapter(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        _check(request.url or "")
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = (CONNECT_SECONDS, READ_SECONDS)
        return super().send(request, *args, **kwargs)


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not _loopback(parts.hostname or ""):
        raise AddressError(f"{parts.hostname} is asked by https only (plain http only to loopback)")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
