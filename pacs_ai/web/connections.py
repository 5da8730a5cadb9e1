"""How long a connection may keep the web face waiting, and how many there may be.

uvicorn (0.54) has no time-out for the head of a request, and its keep-alive time-out ends with the first byte
of whatever comes: a body that nobody reads, for one. Its ``limit_concurrency`` refuses newcomers while silent
ones stay. :class:`Connection` therefore overrides methods of its h11 protocol, and reads ``cycle``, ``flow``,
``connections`` and ``client`` of its state; ``test_connections.py`` tells when uvicorn has a time-out itself.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""How long a connection may be without a request: from its beginning, and from each answer."""

HANDSHAKE_SECONDS = 5.0
"""How long a TLS handshake may take."""

SHAKING = 128
"""Most TLS handshakes at once."""

MAXIMUM = 256
"""Most connections. A process may open 1024 files, where nobody raised that."""

MAXIMUM_PER_ADDRESS = 128
"""Most connections from one address; more than ``web.simultaneous_stores`` may be."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers bound TLS handshakes in time and number; asyncio waits 60 s for each."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """Create a server (:meth:`asyncio.loop.create_server`).

        Raises
        ------
        OSError
            When the port cannot be opened.
        """
        made, *rest = args
        context: ssl.SSLContext | None = kwargs.pop("ssl", None)
        if context is not None:
            wanted, shaking = made, dict[_Shaking, None]()
            made = lambda: _Shaking(self, wanted, context, shaking)  # noqa: E731
        return await super().create_server(made, *rest, **kwargs)


class _Shaking(asyncio.Protocol):
    """A connection whose TLS handshake is not over; then another protocol has it.

    Parameters
    ----------
    loop : Loop
    made : callable
        Returns the protocol that follows.
    context : SSLContext
    shaking : dict
        All of its kind, as they came.
    """

    def __init__(
        self,
        loop: Loop,
        made: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        shaking: dict[_Shaking, None],
    ) -> None:
        self._loop = loop
        self._made = made
        self._context = context
        self._shaking = shaking
        self._early: list[bytes] = []
        self.address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the handshake; where too many have, one of the address with the most leaves."""
        self.transport = transport
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        self._shaking[self] = None
        if len(self._shaking) > SHAKING:
            ((most, _),) = Counter(one.address for one in self._shaking).most_common(1)
            first = next(one for one in self._shaking if one.address == most)
            del self._shaking[first]
            first.transport.abort()
        self._task = self._loop.create_task(self._shake())  # a loop alone holds it weakly

    def data_received(self, data: bytes) -> None:
        """Keep what came with the handshake's end."""
        self._early.append(data)

    async def _shake(self) -> None:
        try:
            secured = await self._loop.start_tls(
                self.transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError:  # it was none, or not in time
            secured = None
        finally:
            self._shaking.pop(self, None)
        if secured is None or secured.is_closing():
            self.transport.abort()
            return
        following = self._made()
        secured.set_protocol(following)
        following.connection_made(secured)
        for data in self._early:
            following.data_received(data)


class Connection(H11Protocol):
    """A connection that is closed when no request comes in time, or others need its place.

    What a client goes on sending after its answer, a body that was refused by its head, is read and forgotten
    until the time is over: closed at once, the answer could be lost on its way (RFC 9112 section 9.6).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._unsent = 0

    # ------------------------------------------------------------------ asyncio and uvicorn call these

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: find a place, and wait for the first request."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._arm()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._heard = self.loop.time()
        super().data_received(data)

    def handle_events(self) -> None:
        """Read heads and bodies; the wait ends when a head is whole."""
        super().handle_events()
        if self._busy:
            self._disarm()

    def on_response_complete(self) -> None:
        """Wait for the next request, if it is not there already."""
        self._heard = self.loop.time()
        self._arm()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for who does not take his answers: requests that he sends ahead are not begun."""
        super().pause_writing()
        self._arm()

    def resume_writing(self) -> None:
        """Go on with the answers."""
        super().resume_writing()
        if self._busy:
            self._disarm()

    # ------------------------------------------------------------------ time

    @property
    def _busy(self) -> bool:
        """Whether a request is under way here: its head was whole, and its answer is not."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not self.flow.write_paused

    def _arm(self) -> None:
        self._disarm()
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._arm()  # it takes its answer, slowly
        elif self.scheme == "https":
            # What it holds encrypted is not told by the buffer's size; asyncio ends this after 30 s.
            self.transport.close()
        else:
            # A close would wait for ever for who does not take its answer.
            self.transport.abort()

    # ------------------------------------------------------------------ number

    def _make_room(self) -> None:
        known = [one for one in self.connections if isinstance(one, Connection)]
        held = Counter(one._address for one in known)
        if held[self._address] > MAXIMUM_PER_ADDRESS:
            rivals = [one for one in known if one._address == self._address]
        elif len(known) > MAXIMUM:
            # Who has most gives first, so that one address does not silence the others.
            most = max((held[one._address] for one in known if not one._busy), default=0)
            rivals = [one for one in known if held[one._address] == most]
        else:
            return
        idle = [one for one in rivals if not one._busy and one is not self]
        longest = min(idle, key=lambda one: one._heard, default=self)
        log.warning("too many connections: one was closed", extra={"peer": longest._address})
        longest._give_way()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _give_way(self) -> None:
        # Its place is free at once, not when the event loop has come round.
        self.connections.discard(self)
        self.transport.abort()
