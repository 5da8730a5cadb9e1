"""The HTTP face as an application: what it answers, and how it is served.

It reads, and takes Instances in by STOW-RS; nothing else changes anything. The face is on loopback, or it has
TLS; it answers only to names that the settings give, so that a page in somebody's browser cannot reach it
under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacs_ai.certificates import Held, Pair
from pacs_ai.errors import PacsAiError, TransientError
from pacs_ai.ledger.tokens import Scope as Opens
from pacs_ai.settings import Web
from pacs_ai.web.connections import Connection, Loop
from pacs_ai.web.guard import Guard
from pacs_ai.web.media import negotiated
from pacs_ai.web.search import QueryError, Workitem, parse, search
from pacs_ai.web.store import COME_AGAIN, Store

log = logging.getLogger(__name__)

_TRANSACTION_UID = "00081195"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Views(Protocol):
    """What the web face reads; ``pacs_ai.ledger.views`` is the real one. Called in threads."""

    def workitems(self) -> Sequence[Workitem]:
        """Return every Workitem in the DICOM JSON Model."""

    def workitem(self, uid: str) -> Workitem | None:
        """Return the Workitem of a SOP Instance UID, or None."""

    def studies(self) -> Sequence[Mapping[str, Any]]:
        """Return the state of every Study as plain JSON values."""

    def health(self) -> Mapping[str, Any]:
        """Return plain JSON values; ``healthy: false`` says that the gateway is not well."""


def create_app(
    views: Views,
    guard: Guard,
    store: Store,
    *,
    hosts: Sequence[str] = Web().hosts,
    certificates: Callable[[], Iterable[Held]] = tuple,
    problems: Callable[[], Iterable[str]] = tuple,
) -> Starlette:
    """Make the application.

    Parameters
    ----------
    views : Views
        Where the answers come from.
    guard : Guard
        Who may read.
    store : Store
        Where Instances go.
    hosts : sequence of str, optional
        Names that requests may address it by.
    certificates : callable, optional
        Returns what is held of certificates, for ``/health``.
    problems : callable, optional
        Returns what else is wrong with the gateway now, each with what to do, for ``/health``.
    """
    pages = _Pages(views, certificates, problems)
    app = Starlette(
        routes=[
            Route("/dicom-web/studies", store.instances, methods=["POST"]),
            Route("/dicom-web/studies/{uid}", store.instances, methods=["POST"]),
            Route("/dicom-web/workitems", guard.reads(Opens.WORKLIST, pages.workitems)),
            Route("/dicom-web/workitems/{uid}", guard.reads(Opens.WORKLIST, pages.workitem)),
            Route("/status", guard.reads(Opens.STATUS, pages.status)),
            Route("/health", guard.reads(Opens.STATUS, pages.health)),
        ],
        middleware=[
            Middleware(_SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={
            HTTPException: _refusal,
            TransientError: _not_now,
            Exception: _failure,
        },
    )
    # A redirect is answered before who asks is known, and a client that follows it may drop the body.
    app.router.redirect_slashes = False
    return app


class _Server(uvicorn.Server):
    """Tells when its port is open."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def run(app: ASGIApp, settings: Web, *, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, finish what is being answered, and return.

    No request is logged: its query may hold a patient's identifiers. ``ready`` is called when the
    port is open.

    Raises
    ------
    ConfigError
        When the certificate or its key cannot be used, or the key is not the gateway's alone.
    """
    tls = None
    if settings.certificate is not None and settings.key is not None:
        context = Pair(settings.certificate, settings.key).following()
        tls = lambda config, default: context  # noqa: E731 - as uvicorn asks for it
    config = uvicorn.Config(
        app,
        http=Connection,  # h11 bounds the size of a request's header (16 KiB)
        ws="none",
        loop=f"{Loop.__module__}:{Loop.__name__}",
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        ssl_context_factory=tls,
    )
    # Uvicorn raises the signal once more when it is done, which would end the role as if killed.
    former = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        _Server(config, ready).run()
    finally:
        signal.signal(signal.SIGTERM, former)


class _Pages:
    """The answers, one method each."""

    def __init__(
        self,
        views: Views,
        certificates: Callable[[], Iterable[Held]],
        problems: Callable[[], Iterable[str]],
    ) -> None:
        self._views = views
        self._certificates = certificates
        self._problems = problems

    def workitems(self, request: Request) -> Response:
        """Search for Workitems (PS3.18 11.9)."""
        media_type = negotiated(request)
        try:
            query = parse(
                (name, value)
                for name, value in request.query_params.multi_items()
                if name != "accept"
            )
        except QueryError as error:
            raise HTTPException(400, str(error)) from error
        found, cut = search(self._views.workitems(), query)
        warning = {}
        if query.fuzzy:
            # PS3.18 8.3.4.2 asks for these words.
            text = "The fuzzymatching parameter is not supported. Only literal matching"
            warning["Warning"] = f'299 pacs-ai "{text} has been performed."'
        if not found:
            return Response(status_code=204, headers=warning)
        return JSONResponse(
            [_readable(one) for one in found],
            status_code=206 if cut else 200,
            headers=warning,
            media_type=media_type,
        )

    def workitem(self, request: Request) -> Response:
        """Retrieve one Workitem (PS3.18 11.5): an array of one data set."""
        media_type = negotiated(request)
        found = self._views.workitem(request.path_params["uid"])
        if found is None:
            raise HTTPException(404, "there is no Workitem of this UID")
        return JSONResponse([_readable(found)], media_type=media_type)

    def status(self, request: Request) -> Response:
        """Tell the state of every Study."""
        return JSONResponse({"studies": list(self._views.studies())})

    def health(self, request: Request) -> Response:
        """Tell whether the gateway is well: 200, or 503 when it is not."""
        try:
            health = dict(self._views.health())
        except PacsAiError as error:
            health = {"ledger": "does not answer", "healthy": False, "problems": [str(error)]}
        held = [*self._certificates()]
        health["certificates"] = {one.setting: _readable_end(one) for one in held}
        others = [*self._problems(), *filter(None, (one.problem for one in held))]
        health["problems"] = [*health.get("problems", ()), *others]
        if others:
            health["healthy"] = False
        return JSONResponse(health, status_code=200 if health.get("healthy", True) else 503)


class _SafeHeaders:
    """Adds the headers that every answer carries, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the only type this is registered for
    return JSONResponse(
        {"error": error.detail}, status_code=error.status_code, headers=error.headers
    )


def _not_now(request: Request, error: Exception) -> Response:
    # Who asks may have shown no token that holds, so that only the log says why.
    log.warning("a request was put off", extra={"reason": str(error)})
    message = {"error": "the gateway cannot answer now: its log says why; try again later"}
    return JSONResponse(message, status_code=503, headers=COME_AGAIN)


def _failure(request: Request, error: Exception) -> Response:
    # Made outside the middleware, so that it has to bring the headers itself.
    message = {"error": "the gateway could not answer: its log says why"}
    return JSONResponse(message, status_code=500, headers=_HEADERS)


def _readable_end(held: Held) -> dict[str, Any]:
    """Tell until when a certificate is good; ``alarm`` is 30, 7 or 1 when it ends within so many days."""
    alarm = held.alarm(datetime.now(UTC))
    return {
        "ends": None if held.ends is None else held.ends.isoformat(),
        "alarm": None if alarm is None else alarm.days,
    }


def _readable(workitem: Workitem) -> dict[str, Any]:
    """Drop the Transaction UID: who holds it may change the Workitem (PS3.4 CC.1.1)."""
    return {tag: element for tag, element in workitem.items() if tag != _TRANSACTION_UID}
