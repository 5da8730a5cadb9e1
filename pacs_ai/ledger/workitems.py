"""Workitems as the ledger keeps them: DICOM JSON (PS3.18 Annex F), found by Study and label."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now


def of_study(connection: Connection, study: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return UID, label, audience and data set of each of a Study's Workitems, oldest first."""
    table = tables.workitems
    rows = connection.execute(
        select(table.c.uid, table.c.label, table.c.audience, table.c.data_set)
        .where(table.c.study_instance_uid == study)
        .order_by(table.c.created_at)
    )
    return [(row.uid, row.label, row.audience, row.data_set) for row in rows]


def put(
    connection: Connection,
    uid: str,
    *,
    study: str,
    label: str,
    audience: str,
    data_set: dict[str, Any],
) -> None:
    """Add a Workitem, or replace the data set of the one that has this UID."""
    table = tables.workitems
    at = now()
    changed = connection.execute(
        update(table)
        .where(table.c.uid == uid)
        .values(audience=audience, data_set=data_set, updated_at=at)
    )
    if not changed.rowcount:
        connection.execute(
            insert(table).values(
                uid=uid,
                study_instance_uid=study,
                label=label,
                audience=audience,
                data_set=data_set,
                created_at=at,
                updated_at=at,
            )
        )
