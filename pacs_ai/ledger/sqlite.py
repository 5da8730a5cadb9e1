"""SQLite as the ledger: one host, no server.

WAL, ``synchronous=FULL``, foreign keys on, and every writing transaction begins with ``BEGIN IMMEDIATE`` so
that two writers wait for each other instead of failing (``reliability.md`` §5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.ledger.prepared import driver_cursor

_PRAGMAS = (
    "PRAGMA busy_timeout=10000",  # first: the others may have to wait too
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
            cursor.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return made
