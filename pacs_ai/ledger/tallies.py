"""Counters of what went wrong on the way in: refusals by status, and failures of the spool.

A row for each, not an event for each: a sender that is refused sends again, for hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import upsert

SPOOL = "spool"
"""Name of the tally of writes and syncs of the spool that failed; the others are statuses."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often, and how long ago the last was."""

    number: int
    ago: timedelta


def add(connection: Connection, counts: Mapping[str, Count]) -> None:
    """Add to tallies by name."""
    table = tables.tallies
    at = now()
    for name, count in sorted(counts.items()):
        value = {"number": count.number, "last_at": at - count.ago}
        connection.execute(
            upsert(connection.dialect.name, table)
            .values(name=name, **value)
            .on_conflict_do_update(
                index_elements=["name"],
                set_={**value, "number": table.c.number + count.number},
            )
        )


def refused(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """Return by status how often it was answered, and when last."""
    table = tables.tallies
    rows = connection.execute(select(table).where(table.c.name != SPOOL).order_by(table.c.name))
    return {row.name: (row.number, row.last_at) for row in rows}


def spool_failure(connection: Connection) -> datetime | None:
    """Return when the spool failed, if no Instance was stored since."""
    table, stored = tables.tallies, tables.instances
    failed: datetime | None = connection.scalar(
        select(table.c.last_at).where(table.c.name == SPOOL)
    )
    newest = select(func.max(stored.c.id)).scalar_subquery()
    last: datetime | None = connection.scalar(
        select(stored.c.received_at).where(stored.c.id == newest)
    )
    return None if failed and last and last > failed else failed
