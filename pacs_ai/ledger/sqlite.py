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
import threading
import time
from pathlib import Path
from typing import Any, NoReturn
from weakref import finalize

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.errors import PacsAiError
from pacs_ai.ledger.engine import LedgerBusyError, LedgerGoneError
from pacs_ai.ledger.prepared import driver_cursor, told

_PATIENCE = 10.0
_SHORTEST, _LONGEST = 0.0002, 0.005
_WAIT, _NO_WAIT = f"PRAGMA busy_timeout={_PATIENCE * 1000:.0f}", "PRAGMA busy_timeout=0"
_HASTY = "hasty"
"""Noted about a connection that does not wait by itself."""
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


class _Pinned:
    """A file that is open, so that none that comes later has its number and is taken for it.

    To close a descriptor of this kind drops no lock that SQLite has on the file (open(2), O_PATH;
    sqlite.org/howtocorrupt.html section 2.2).
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        finalize(self, os.close, descriptor)
        found = os.fstat(descriptor)
        self.identity: _Identity = found.st_dev, found.st_ino


class _Place:
    """The path of the ledger, and the file that this process found there.

    It and the log beside it are pinned until others are known: also while the ledger is closed, or who has
    it open only now and then would take another's file for it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._changing = threading.Lock()
        self._file: _Pinned | None = None
        self._log: _Pinned | None = None
        self._installation: str | None = None

    def found(self) -> _Identity:
        """Return which file a new connection would open; one is never made here."""
        file = _identity(self._path)
        if file is None:
            raise LedgerGoneError(f"the ledger's file is gone: {_REMEDY}")
        former, log = self._file, self._log
        if former and log and file != former.identity and log.identity == _identity(self._log_path):
            # SQLite would write the former file's last pages into this one.
            raise LedgerGoneError(
                f"the ledger's file was replaced beside the -wal of the former: {_REMEDY}"
            )
        return file

    def admit(self, file: _Identity, cursor: sqlite3.Cursor) -> None:
        """Take a new connection's file as the ledger, if it is the one that was here or a copy of it."""
        installation = _installation(cursor)
        if self._installation not in (None, installation):
            raise LedgerGoneError(f"the ledger's file was replaced by another's: {_REMEDY}")
        pinned = _pinned(self._path)
        if pinned is None or pinned.identity != file:
            raise LedgerGoneError(f"the ledger's file is gone: {_REMEDY}")
        with self._changing:
            self._file, self._log = pinned, None  # the log is noted with the next transaction
        self._installation = installation

    def holds(self, connection: Connection, opened: _Identity) -> bool:
        """Tell whether a connection is still to the file at the path."""
        if _identity(self._path) != opened:
            return False
        if self._log is None or self._installation is None:  # of a new ledger they come later
            self._note_log()
            try:
                self._installation = _installation(_patient_cursor(connection))
            except sqlite3.Error as error:
                raise told(connection, error) from error
        return True

    def _note_log(self) -> None:
        with self._changing:
            if self._log is None:
                self._log = _pinned(self._log_path)

    @property
    def _log_path(self) -> str:
        return f"{self._path}-wal"


def _pinned(path: str) -> _Pinned | None:
    try:
        return _Pinned(path)
    except FileNotFoundError:
        return None
    except OSError as error:  # no descriptor is left
        raise LedgerBusyError("the ledger's file cannot be looked at now") from error


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
    place: _Place | None = connection.get_execution_options().get("place")
    if place is not None and not place.holds(connection, connection.info["file"]):
        _give_up(connection)


def _give_up(connection: Connection) -> NoReturn:
    connection.invalidate()
    connection.engine.dispose()
    raise LedgerGoneError(f"the ledger's file was removed or replaced: {_REMEDY}")


class Transactions:
    """The transactions of a connection that only writes.

    It is told not to wait by itself, which lasts until it serves others, and to begin and to commit wait in
    its stead. Between them, with the lock of writers held, it meets nobody: in WAL mode a connection may find
    the file locked when it begins to read, and later no more (sqlite.org/wal.html, "Sometimes Queries Return
    SQLITE_BUSY In WAL Mode").
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._info = connection.info
        self._place: _Place | None = connection.get_execution_options().get("place")
        self._file: _Identity = self._info.get("file", (0, 0))
        self._cursor: sqlite3.Cursor = driver_cursor(connection)

    def begin(self) -> None:
        """Begin one, with the lock of writers.

        Raises
        ------
        LedgerGoneError
            When the file was removed or replaced.
        """
        self.certain()
        try:
            if _HASTY not in self._info:
                self._cursor.execute(_NO_WAIT)
                self._info[_HASTY] = True
            _run_patiently(self._cursor, "BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise told(self.connection, error) from error

    def commit(self) -> None:
        """Commit what was written."""
        try:
            _run_patiently(self._cursor, "COMMIT")
        except sqlite3.Error as error:
            raise told(self.connection, error) from error

    def certain(self) -> None:
        """As :func:`certain`."""
        if self._place is not None and not self._place.holds(self.connection, self._file):
            _give_up(self.connection)


def engine(url: URL) -> Engine:
    """Return an engine for a file, which is made for this user alone."""
    if url.database:
        file = Path(url.database)
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.touch(mode=0o600)  # Workitems name patients; SQLite's own files take this mode
        except OSError as error:
            raise PacsAiError(
                f"the ledger's file {file} cannot be opened to write ({error.strerror}): change the owner or "
                "mode of it and its folder, or `ledger`"
            ) from error
    place = _Place(url.database) if url.database else None
    # An error of the database would otherwise show the values of its statement, a patient's among them.
    made = create_engine(
        url,
        connect_args={"check_same_thread": False},
        execution_options={"place": place},
        hide_parameters=True,
    )

    @event.listens_for(made, "do_connect")
    def _look(dialect: Any, record: ConnectionPoolEntry, places: Any, names: Any) -> None:
        if place is not None:
            record.info["file"] = place.found()

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

    event.listen(made, "begin", _begin)
    return made


def _begin(connection: Connection) -> None:
    is_steady = _HASTY in connection.info
    cursor = _patient_cursor(connection)  # SQLAlchemy's commit does not wait in steps of its own
    if is_steady and cursor.connection.in_transaction:
        return  # SQLAlchemy takes part from here on
    certain(connection)
    immediate = connection.get_execution_options().get("writes", False)
    try:
        if immediate:
            _begin_writing(cursor)
        else:
            cursor.execute("BEGIN")
    except sqlite3.Error as error:
        raise told(connection, error) from error


def _patient_cursor(connection: Connection) -> sqlite3.Cursor:
    """Return a cursor of a connection that waits by itself, from now on, for whoever holds a lock."""
    cursor: sqlite3.Cursor = driver_cursor(connection)
    if connection.info.pop(_HASTY, False):
        cursor.execute(_WAIT)
    return cursor


def _begin_writing(cursor: sqlite3.Cursor) -> None:
    cursor.execute(_NO_WAIT)
    try:
        _run_patiently(cursor, "BEGIN IMMEDIATE")
    finally:
        cursor.execute(_WAIT)


def _run_patiently(cursor: sqlite3.Cursor, statement: str) -> None:
    """Run a statement, and wait for whoever holds a lock that it needs."""
    try:
        cursor.execute(statement)
    except sqlite3.OperationalError as error:
        if not _is_busy(error):
            raise
        _run_after_all(cursor, statement)


def _run_after_all(cursor: sqlite3.Cursor, statement: str) -> None:
    over, pause = time.monotonic() + _PATIENCE, _SHORTEST
    while True:
        time.sleep(pause)
        pause = min(pause * 1.2, _LONGEST)
        last = time.monotonic() > over
        try:
            cursor.execute(statement)
        except sqlite3.OperationalError as error:
            if last or not _is_busy(error):
                raise
        else:
            return


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_BUSY
