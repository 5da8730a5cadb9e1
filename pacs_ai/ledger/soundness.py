"""Is the ledger sound? What ``pacs-ai check`` asks of it; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.engine import Database, migrations

CLOCK_TOLERANCE = timedelta(seconds=60)
"""How far apart two clocks may be before somebody is told."""


def unsound(database: Database) -> Iterator[str]:
    """Yield everything that is wrong with a ledger, each with what to do.

    Raises
    ------
    LedgerUnusableError
        When the file is no ledger, or a later version of the gateway made it.
    LedgerBusyError
        When it does not answer.
    """
    database.verify()
    with database.read() as connection:
        yield from _pages(connection)
        schema = MigrationContext.configure(connection).get_current_heads()
        newest = ScriptDirectory.from_config(migrations(connection)).get_heads()
        if set(schema) != set(newest):
            yield (
                "its schema is of an earlier version: back it up, then start the gateway, "
                "which brings it up"
            )
            return
        last = connection.scalar(select(func.max(tables.events.c.at)))
        if last is not None and last > now() + CLOCK_TOLERANCE:
            yield (
                "it holds events dated ahead of this machine's clock: was the clock set back? "
                "Set it right before the gateway starts"
            )


def _pages(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if found != "ok":
        yield "its file is damaged (integrity_check): stop the gateway and restore the backup"
