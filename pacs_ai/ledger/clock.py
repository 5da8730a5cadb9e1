"""The clock of the ledger: inside a transaction the database's, outside of one the host's.

Leases, back-offs and quiet periods are compared by processes on several hosts, so they all take one clock.
SQLite runs on the gateway's own host: there both are the same. On PostgreSQL a transaction asks the server
once, when the time is first wanted, and adds what has passed since on the monotonic clock; a host whose
clock is wrong, or is set meanwhile, changes nothing. Outside of transactions the time is for display and
for the age of a Study; durations inside a process use the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from pacs_ai.ledger.prepared import Prepared

AHEAD = timedelta(minutes=5)
"""What lies so far ahead of now was dated by a clock that was wrong, and has been set right since."""


def host_time() -> datetime:
    """Return the host's time, aware, UTC."""
    return datetime.now(UTC)


_clock: ContextVar[Callable[[], datetime]] = ContextVar("clock", default=host_time)

ClockToken = Token[Callable[[], datetime]]


def now() -> datetime:
    """Return the time, aware, UTC; inside a transaction of the ledger by the database's clock."""
    return _clock.get()()


@contextmanager
def clock_of(connection: Connection) -> Iterator[None]:
    """Let :func:`now` answer by a connection's database for the length of its transaction."""
    token = take_clock(connection)
    try:
        yield
    finally:
        give_back_clock(token)


def take_clock(connection: Connection) -> ClockToken:
    """Let :func:`now` answer by a connection's database until :func:`give_back_clock`."""
    server = connection.dialect.name == "postgresql"
    return _clock.set(_ServerClock(connection).now if server else host_time)


def give_back_clock(token: ClockToken) -> None:
    """Let :func:`now` answer as before :func:`take_clock`."""
    _clock.reset(token)


_ASK = Prepared(lambda _: select(func.clock_timestamp()))


class _ServerClock:
    """The clock of PostgreSQL, asked once and carried on by the monotonic clock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        if self._read is None:
            at: datetime = _ASK.run(self._connection, {}).fetchone()[0]
            self._read = (at.astimezone(UTC), time.monotonic())
        at, since = self._read
        return at + timedelta(seconds=time.monotonic() - since)
