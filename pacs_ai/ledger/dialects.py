"""What SQLite and PostgreSQL do differently inside a transaction: locks and upserts.

SQLite has one writer at a time, so what a transaction reads is still true when it writes. PostgreSQL has
many, and "read, decide, write" needs a lock on what is decided about: a Study, or a queue. These locks are
*advisory* (there may be no row yet), and end with the transaction. They are taken in one order, a queue
before Studies, Studies sorted, and the spool last, so that two transactions never wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

_SCHEMA = "schema"
_SPOOL = "spool"


def lock_studies(connection: Connection, studies: Iterable[str]) -> None:
    """Let no other transaction write about these Studies until this one ends."""
    for study in sorted(set(studies)):
        _lock(connection, f"study {study}")


def lock_queue(connection: Connection, queue: str) -> None:
    """Let no other transaction claim from a queue until this one ends."""
    _lock(connection, f"queue {queue}")


def share_spool(connection: Connection) -> None:
    """Let no file be removed from the spool until this transaction ends; others may share."""
    _lock(connection, _SPOOL, func.pg_advisory_xact_lock_shared)


def lock_spool(connection: Connection) -> None:
    """Let no other transaction come to count on a file of the spool until this one ends."""
    _lock(connection, _SPOOL)


def lock_schema(connection: Connection) -> None:
    """Let no other process migrate until this transaction ends; a migration may take its time."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '5min'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    _lock(connection, _SCHEMA)


def upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ON CONFLICT, as the database of that name spells it."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _lock(
    connection: Connection,
    name: str,
    how: Callable[..., ColumnElement[Any]] = func.pg_advisory_xact_lock,
) -> None:
    if connection.dialect.name == "postgresql":
        key = func.hashtextextended(f"pacs-ai {name}", 0)
        connection.execute(select(how(key)))
