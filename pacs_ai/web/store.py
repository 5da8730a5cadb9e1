"""STOW-RS: ``POST /dicom-web/studies`` and ``/dicom-web/studies/{uid}`` (PS3.18 10.5).

The body is read in the event loop and handed to threads in pieces, so that a slow disk keeps nobody else
waiting, and a slow sender holds no thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
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
                status, error = await self._take(request, Multipart(limit, storing), storing)
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

    async def _take(
        self, request: Request, multipart: Multipart, storing: Storing
    ) -> tuple[int, str]:
        """Read the body; return the status, and what was wrong with the request."""
        try:
            async for piece in self._pieces(request):
                await run_in_threadpool(multipart.feed, piece)
            multipart.close()
        except MultipartError as error:
            await run_in_threadpool(storing.cut_off)
            return (202 if storing.stored else 400), str(error)
        except TooLargeError as error:
            return 413, str(error)
        except TimeoutError:
            return 408, f"nothing came for {IDLE_SECONDS:.0f} s"
        except ClientDisconnect:
            log.warning("a sender went away in the middle of a request")
            return 400, "the sender went away"
        return _status(storing), ""

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        maximum = self._gateway.settings.web.maximum_request
        stream = request.stream()
        gathered, total = bytearray(), 0
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            total += len(chunk)
            if total > maximum:
                raise TooLargeError(f"more than web.maximum_request ({maximum} bytes)")
            gathered += chunk
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
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
