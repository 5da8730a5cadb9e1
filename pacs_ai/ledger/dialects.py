"""What SQLite and PostgreSQL do differently inside a transaction: locks and upserts.

SQLite has one writer at a time, so what a transaction reads is still true when it writes. PostgreSQL has
many, and "read, decide, write" needs a lock on what is decided about: a Study, an Instance, or a queue. These
locks are *advisory* (there may be no row yet), and end with the transaction. They are taken in one order, a
queue before Studies, Studies before Instances, each sorted, and the spool last, so that two transactions
never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    bindparam,
    column,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from pacs_ai.ledger.prepared import Prepared

_SCHEMA = "schema"
_SPOOL = "spool"


def _key() -> ColumnElement[int]:
    return func.hashtextextended(bindparam("name", type_=String()), 0)


_LOCK = Prepared(lambda _: select(func.pg_advisory_xact_lock(_key())))
_LOCK_EACH = Prepared(
    lambda _: select(
        func.pg_advisory_xact_lock(func.hashtextextended(column("name"), 0))
    ).select_from(
        func.unnest(bindparam("names", type_=postgresql.ARRAY(String())))
        .table_valued("name")
        .render_derived()
    )
)
"""In the order of the names."""
_SHARE = Prepared(lambda _: select(func.pg_advisory_xact_lock_shared(_key())))


def lock_studies(connection: Connection, studies: Iterable[str]) -> None:
    """Let no other transaction write about these Studies until this one ends."""
    _lock_each(connection, "study", studies)


def lock_instances(connection: Connection, instances: Iterable[str]) -> None:
    """Let no other transaction record these SOP Instance UIDs, under whatever Study, until this one ends."""
    _lock_each(connection, "instance", instances)


def lock_queue(connection: Connection, queue: str) -> None:
    """Let no other transaction claim from a queue until this one ends."""
    _lock(connection, f"queue {queue}")


def share_spool(connection: Connection) -> None:
    """Let no file be removed from the spool until this transaction ends; others may share."""
    if connection.dialect.name == "postgresql":
        _SHARE.run(connection, {"name": f"pacs-ai {_SPOOL}"})


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


def _lock(connection: Connection, name: str) -> None:
    if connection.dialect.name == "postgresql":
        _LOCK.run(connection, {"name": f"pacs-ai {name}"})


def _lock_each(connection: Connection, kind: str, uids: Iterable[str]) -> None:
    if connection.dialect.name != "postgresql":
        return
    names = [f"pacs-ai {kind} {one}" for one in sorted(set(uids))]
    if names:
        _LOCK_EACH.run(connection, {"names": names})
