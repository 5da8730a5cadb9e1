"""The event table: one dated fact a row, written in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now


def record(
    connection: Connection,
    kind: str,
    *,
    actor: str,
    study: str | None = None,
    work_id: str | None = None,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add an event.

    Parameters
    ----------
    kind : str
        What happened: ``infer done``, ``deliver held``, ``delivery paused``, ``configured``, ...
    actor : str
        Who did it: a role of the gateway, a peer's name, or a person at the command line.
    study, work_id : str, optional
        Study Instance UID and work row it belongs to.
    reason : str
        Why, for a person; no patient identifiers.
    detail : mapping, optional
        JSON values; UIDs, counts and names of settings only.
    """
    connection.execute(
        insert(tables.events).values(
            at=now(),
            kind=kind,
            actor=actor,
            study_instance_uid=study,
            work_id=work_id,
            reason=reason,
            detail=dict(detail or {}),
        )
    )
