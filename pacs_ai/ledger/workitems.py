"""Workitems as the ledger keeps them: DICOM JSON (PS3.18 Annex F), found by Study and label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now


@dataclass(frozen=True, slots=True)
class WorkitemRow:
    """A row of ``workitems``; ``data_set`` is DICOM JSON."""

    uid: str
    label: str
    audience: str
    data_set: dict[str, Any]


def of_study(connection: Connection, study: str) -> list[WorkitemRow]:
    """Return a Study's Workitems, oldest first."""
    table = tables.workitems
    rows = connection.execute(
        select(table.c.uid, table.c.label, table.c.audience, table.c.data_set)
        .where(table.c.study_instance_uid == study)
        .order_by(table.c.created_at)
    )
    return [WorkitemRow(row.uid, row.label, row.audience, row.data_set) for row in rows]


def put(connection: Connection, study: str, row: WorkitemRow) -> None:
    """Add a Workitem, or replace audience and data set of the one that has this UID."""
    table = tables.workitems
    at = now()
    said = {"audience": row.audience, "data_set": row.data_set, "updated_at": at}
    changed = connection.execute(update(table).where(table.c.uid == row.uid).values(**said))
    if not changed.rowcount:
        connection.execute(
            insert(table).values(
                uid=row.uid,
                study_instance_uid=study,
                label=row.label,
                created_at=at,
                **said,
            )
        )
