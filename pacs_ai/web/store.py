"""STOW-RS: ``POST /dicom-web/studies`` and ``/dicom-web/studies/{uid}`` (PS3.18 10.5).

The body is read in the event loop and handed to threads in pieces, so that a slow disk keeps nobody else
waiting, and a slow sender holds no thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Protocol

from pydicom.uid import UID
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from pacs_ai.errors import TransientError
from pacs_ai.gateway import Gateway
from pacs_ai.ledger.tokens import Scope, Token
from pacs_ai.web.guard import Guard
from pacs_ai.web.media import negotiated
from pacs_ai.web.multipart import MediaTypeError, Multipart, MultipartError, boundary
from pacs_ai.web.storing import Storing, TooLargeError

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""How long a sender may be silent in the middle of a body."""

COME_AGAIN = {"Retry-After": "30"}
"""Headers of an answer 503."""

PACE_SECONDS = 30.0
PACE_BYTES = 64 * 1024
"""What a sender has to bring at least in each such time but the first; a modem of 1995 does."""

_PIECE = 512 * 1024


class Record(Protocol):
    """Where the use of a token is written down; ``pacs_ai.ledger.tokens`` is the real place."""

    def used(self, token: Token, *, stored: int, failed: int, study: str | None) -> None:
        """Record that Instances were sent with a token."""


class Store:
    """The STOW-RS resource.

    Parameters
    ----------
    gateway : Gateway
    guard : Guard
    record : Record
    """

    def __init__(self, gateway: Gateway, guard: Guard, record: Record) -> None:
        self._gateway = gateway
        self._guard = guard
        self._record = record
        self._under_way = 0

    async def instances(self, request: Request) -> Response:
        """Store Instances, of one Study where the resource names it (PS3.18 10.5)."""
        token = await run_in_threadpool(self._guard.admit, request, Scope.STOW)
        media_type = negotiated(request)
        study = _study(request)
        limit = self._boundary(request)
        await run_in_threadpool(self._refuse_for_now)
        with self._slot():
            storing = Storing(self._gateway, peer=token.name, study=study)
            try:
                status, error = await self._take(request, limit, storing)
            finally:
                await run_in_threadpool(storing.discard)
                await run_in_threadpool(self._note, token, storing, study)
            return await run_in_threadpool(_answer, storing, status, error, media_type)

    # ------------------------------------------------------------------ before the body

    def _boundary(self, request: Request) -> bytes:
        maximum = self._gateway.settings.web.maximum_request
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > maximum:
            raise HTTPException(413, f"more than web.maximum_request ({maximum} bytes)")
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise HTTPException(415, "the body has a Content-Encoding: send it without")
        try:
            return boundary(request.headers.get("content-type", ""))
        except MediaTypeError as error:
            raise HTTPException(415, str(error)) from error
        except MultipartError as error:
            raise HTTPException(400, str(error)) from error

    def _refuse_for_now(self) -> None:
        if not self._gateway.has_room():
            raise HTTPException(503, "the disk is nearly full", headers=COME_AGAIN)
        if self._gateway.too_much_waits():
            raise HTTPException(503, "too much work is waiting", headers=COME_AGAIN)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        # Counted in the event loop alone, so that no lock is needed.
        if self._under_way >= self._gateway.settings.web.simultaneous_stores:
            raise HTTPException(503, "too many requests at once", headers=COME_AGAIN)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    # ------------------------------------------------------------------ the body

    async def _take(self, request: Request, limit: bytes, storing: Storing) -> tuple[int, str]:
        """Read the body up to its last boundary; return the status, and what was wrong with the request."""
        multipart = Multipart(limit, storing)
        try:
            async with aclosing(self._pieces(request, limit)) as pieces:
                async for piece in pieces:
                    await run_in_threadpool(multipart.feed, piece)
                    if multipart.ended:
                        break
            multipart.close()
        except MultipartError as error:
            await run_in_threadpool(storing.cut_off)
            return (202 if storing.stored else 400), str(error)
        except TooLargeError as error:
            return 413, str(error)
        except _TooSlowError as error:
            return 408, str(error)
        except ClientDisconnect:
            log.warning("a sender went away in the middle of a request")
            return 400, "the sender went away"
        return _status(storing), ""

    async def _pieces(self, request: Request, limit: bytes) -> AsyncGenerator[bytes]:
        """Yield the body in pieces of some size, and at once what may be its last boundary."""
        maximum = self._gateway.settings.web.maximum_request
        last = b"--" + limit + b"--"
        stream = request.stream()
        pace = _Pace()
        gathered, seam, total = bytearray(), b"", 0
        while True:
            chunk = await pace.next(stream)
            if chunk is None:
                break
            total += len(chunk)
            if total > maximum:
                raise TooLargeError(f"more than web.maximum_request ({maximum} bytes)")
            gathered += chunk
            # The boundary may be cut anywhere, also where a piece ended.
            seam += chunk
            if len(gathered) >= _PIECE or last in seam:
                yield bytes(gathered)
                gathered.clear()
            seam = seam[-len(last) + 1 :]
        yield bytes(gathered)

    def _note(self, token: Token, storing: Storing, study: str | None) -> None:
        if not storing.stored and not storing.failed:
            return
        try:
            self._record.used(
                token, stored=len(storing.stored), failed=len(storing.failed), study=study
            )
        except TransientError:
            # What is stored is durable and its rows name the token; only the summary is missing.
            log.exception("the use of a token was not recorded")


class _TooSlowError(Exception):
    """A sender is silent, or drips; the message is fit for it."""


class _Pace:
    """Waits for a sender, and tells when it takes a slot for too little.

    Only the time that is spent on waiting counts: how long the gateway writes is not the sender's fault.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._came = 0
        self._least = 0

    async def next(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """Return what comes next, or None at the end.

        Raises
        ------
        _TooSlowError
            When nothing comes, or too little came lately.
        """
        if self._waited >= PACE_SECONDS:
            if self._came < self._least:
                raise _TooSlowError(f"less than {PACE_BYTES} bytes came in {PACE_SECONDS:.0f} s")
            self._waited, self._came, self._least = 0.0, 0, PACE_BYTES
        began = time.monotonic()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise _TooSlowError(f"nothing came for {IDLE_SECONDS:.0f} s") from error
        self._waited += time.monotonic() - began
        self._came += len(chunk or b"")
        return chunk


def _study(request: Request) -> str | None:
    study: str | None = request.path_params.get("uid")
    if study is not None and not UID(study).is_valid:
        raise HTTPException(400, "the Study Instance UID of the resource is not a UID")
    return study


def _status(storing: Storing) -> int:
    """Return the status of a request that was read to its end (PS3.18 Table 10.5.3-1)."""
    if storing.stored:
        return 202 if storing.failed else 200
    if not storing.failed:
        return 400
    if storing.oversized:
        return 413
    out_of_resources = all(reason >> 8 == 0xA7 for _, reason in storing.failed)
    return 503 if out_of_resources else 409


def _answer(storing: Storing, status: int, error: str, media_type: str) -> Response:
    headers = COME_AGAIN if status == 503 else None
    if not storing.stored and not storing.failed:
        message = {"error": error or "the request has no Instances"}
        return JSONResponse(message, status_code=status, headers=headers)
    module = storing.response().to_json_dict()
    return JSONResponse(module, status_code=status, headers=headers, media_type=media_type)
