"""Is the ledger sound? What ``pacs-ai check`` asks of it; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.engine import EARLIER, Database, migrations

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
            yield EARLIER


def dated_ahead(database: Database) -> Iterator[str]:
    """Yield what to do where a sound ledger's newest event lies ahead of the clock."""
    events = tables.events.c
    with database.read() as connection:
        last = connection.scalar(select(events.at).order_by(events.id.desc()).limit(1))
        if last is not None and last > now() + CLOCK_TOLERANCE:
            yield (
                "its newest event is dated ahead of this machine's clock: if the clock is behind, set it "
                "right before the gateway starts; if it was ahead and is right now, there is nothing to do"
            )


def _pages(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if found != "ok":
        yield "its file is damaged (integrity_check): stop the gateway and restore the backup"
