"""SQLite as the ledger: one host, no server.

WAL, ``synchronous=FULL``, foreign keys on, and every writing transaction begins with ``BEGIN IMMEDIATE`` so
that two writers wait for each other instead of failing (``reliability.md`` §5). They wait in shorter steps
than SQLite would, whose own (1, 2, 5, 10 ms and more) are longer than most transactions of those that wait.

A file that is removed or replaced takes every further commit with it, and SQLite says nothing in this mode:
each transaction looks, at its beginning and after its commit, whether the path still leads to its file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.ledger.engine import LedgerGoneError
from pacs_ai.ledger.prepared import driver_cursor, told

_PATIENCE = 10.0
_SHORTEST, _LONGEST = 0.0002, 0.005
_WAIT, _NO_WAIT = f"PRAGMA busy_timeout={_PATIENCE * 1000:.0f}", "PRAGMA busy_timeout=0"
_PRIMARY = 0xFF
"""The bits of a result code that say what happened; the others say where (sqlite.org/rescode.html)."""

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)

OPTIONS: dict[str, dict[str, Any]] = {"write": {"writes": True}, "read": {"writes": False}}
"""SQLAlchemy's execution options of both kinds of transaction."""


_REMEDY = "stop the gateway, put its backup back without files -wal and -shm beside it, and start"

_Identity = tuple[int, int]


class _Place:
    """The path of the ledger, and the file that this process found there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: _Identity | None = None
        self._log: _Identity | None = None
        self._installation: str | None = None

    def found(self) -> _Identity:
        """Return which file a new connection would open; one is never made here."""
        file = _identity(self._path)
        if file is None:
            raise LedgerGoneError(f"the ledger's file is gone: {_REMEDY}")
        if file != self._file and self._log and self._log == _identity(f"{self._path}-wal"):
            # SQLite would write the former file's last pages into this one.
            raise LedgerGoneError(
                f"the ledger's file was replaced beside the -wal of the former: {_REMEDY}"
            )
        return file

    def admit(self, file: _Identity, cursor: sqlite3.Cursor) -> None:
        """Take a new connection's file as the ledger, if it is a copy of the one that was here."""
        installation = _installation(cursor)
        if self._file not in (None, file) and installation != self._installation:
            raise LedgerGoneError(f"the ledger's file was replaced by another's: {_REMEDY}")
        if _identity(self._path) != file:
            raise LedgerGoneError(f"the ledger's file is gone: {_REMEDY}")
        self._file, self._log = file, None
        self._installation = installation or self._installation

    def holds(self, connection: Connection, opened: _Identity) -> bool:
        """Tell whether a connection is still to the file at the path."""
        if _identity(self._path) != opened:
            return False
        if self._log is None or self._installation is None:  # of a new ledger they come later
            self._log = _identity(f"{self._path}-wal")
            try:
                self._installation = _installation(driver_cursor(connection))
            except sqlite3.Error as error:
                raise told(connection, error) from error
        return True


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - for every transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _installation(cursor: sqlite3.Cursor) -> str | None:
    try:
        row = cursor.execute("SELECT id FROM installation").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise  # it is locked, or cannot be read
        return None  # a new ledger has no tables
    return None if row is None else str(row[0])


def certain(connection: Connection) -> None:
    """See to it that what was read or committed is of the ledger that the next to come will find.

    Raises
    ------
    LedgerGoneError
        When the file was removed or replaced meanwhile; every connection to it is given up.
    """
    info = connection.info
    place: _Place | None = info.get("place")
    if place is not None and not place.holds(connection, info["file"]):
        connection.invalidate()
        connection.engine.dispose()
        raise LedgerGoneError(f"the ledger's file was removed or replaced: {_REMEDY}")


def engine(url: URL) -> Engine:
    """Return an engine for a file, which is made for this user alone."""
    if url.database:
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)  # Workitems name patients; SQLite's own files take this mode
    place = _Place(url.database) if url.database else None
    # An error of the database would otherwise show the values of its statement, a patient's among them.
    made = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True)

    @event.listens_for(made, "do_connect")
    def _look(dialect: Any, record: ConnectionPoolEntry, places: Any, names: Any) -> None:
        if place is not None:
            record.info.update(place=place, file=place.found())

    @event.listens_for(made, "connect")
    def _configure(driver: Any, record: ConnectionPoolEntry) -> None:
        driver.isolation_level = None  # the driver must not begin by itself
        cursor = driver.cursor()
        cursor.execute(_WAIT)  # first: the others may have to wait too
        if place is not None:
            place.admit(record.info["file"], cursor)
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        certain(connection)
        immediate = connection.get_execution_options().get("writes", False)
        cursor = driver_cursor(connection)
        try:
            if immediate:
                _begin_writing(cursor)
            else:
                cursor.execute("BEGIN")
        except sqlite3.Error as error:
            raise told(connection, error) from error

    return made


def _begin_writing(cursor: sqlite3.Cursor) -> None:
    over, pause = time.monotonic() + _PATIENCE, _SHORTEST
    cursor.execute(_NO_WAIT)
    try:
        while not _has_begun(cursor, last=time.monotonic() > over):
            time.sleep(pause)
            pause = min(pause * 1.2, _LONGEST)
    finally:
        cursor.execute(_WAIT)


def _has_begun(cursor: sqlite3.Cursor, *, last: bool) -> bool:
    try:
        cursor.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
