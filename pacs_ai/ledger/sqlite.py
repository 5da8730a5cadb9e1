"""SQLite as the ledger: one host, no server.

WAL, ``synchronous=FULL``, foreign keys on, and every writing transaction begins with ``BEGIN IMMEDIATE`` so
that two writers wait for each other instead of failing (``reliability.md`` §5). They wait in shorter steps
than SQLite would, whose own (1, 2, 5, 10 ms and more) are longer than most transactions of those that wait.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.ledger.prepared import driver_cursor

_PATIENCE = 10.0
_SHORTEST, _LONGEST = 0.0002, 0.005
_WAIT, _NO_WAIT = f"PRAGMA busy_timeout={_PATIENCE * 1000:.0f}", "PRAGMA busy_timeout=0"
_PRIMARY = 0xFF
"""The bits of a result code that say what happened; the others say where (sqlite.org/rescode.html)."""

_PRAGMAS = (
    _WAIT,  # first: the others may have to wait too
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)

OPTIONS: dict[str, dict[str, Any]] = {"write": {"writes": True}, "read": {"writes": False}}
"""SQLAlchemy's execution options of both kinds of transaction."""


def engine(url: URL) -> Engine:
    """Return an engine for a file, which is made for this user alone."""
    if url.database:
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)  # Workitems name patients; SQLite's own files take this mode
    # An error of the database would otherwise show the values of its statement, a patient's among them.
    made = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True)

    @event.listens_for(made, "connect")
    def _configure(driver: Any, record: ConnectionPoolEntry) -> None:
        driver.isolation_level = None  # the driver must not begin by itself
        cursor = driver.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("writes", False)
        with driver_cursor(connection) as cursor:
            if immediate:
                _begin_writing(cursor)
            else:
                cursor.execute("BEGIN")

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
