"""Instances whose bytes are durable become facts: many of them in one transaction.

Four statements and the work row serve a whole group, so that what a commit costs is shared by every
association that stores at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, case, select, update

from pacs_ai.ledger import tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import upsert
from pacs_ai.ledger.work import Kind
from pacs_ai.study import Head

table = tables.instances

_HELD = select(
    table.c.sop_instance_uid,
    table.c.digest,
    table.c.transfer_syntax_uid,
    table.c.state,
    table.c.role,
    table.c.id,
    table.c.removed_at,
).where(table.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_OWN = select(tables.objects.c.sop_instance_uid).where(
    tables.objects.c.sop_instance_uid.in_(bindparam("uids", expanding=True))
)


@cache
def _insert(dialect: str) -> Any:
    # On PostgreSQL another listener may have recorded the same bytes under another Study's lock.
    return upsert(dialect, table).on_conflict_do_nothing()


@cache
def _note(dialect: str) -> Any:
    statement = upsert(dialect, tables.studies)
    return statement.on_conflict_do_update(
        index_elements=["study_instance_uid"], set_={"last_at": statement.excluded.last_at}
    )


_REVIVE = (
    update(table)
    .where(table.c.id == bindparam("row"))
    .values(
        # What was let go keeps the state that a comparison gave it.
        state=case((table.c.state == "replaced", "unchecked"), else_=table.c.state),
        received_at=bindparam("at"),
        removed_at=None,
    )
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An Instance whose bytes are durable under their name.

    Attributes
    ----------
    head : Head
    digest : str
        SHA-256 of the data set's bytes, hexadecimal.
    size : int
        Bytes of the data set.
    transfer_syntax_uid : str
    peer : str
        Name of the peer (settings) that sent it.
    quiet : timedelta
        How long its Study must be quiet before it counts as complete.
    """

    head: Head
    digest: str
    size: int
    transfer_syntax_uid: str
    peer: str
    quiet: timedelta

    @property
    def bytes_key(self) -> tuple[str, str, str]:
        """What makes it exactly these bytes."""
        return self.head.SOPInstanceUID, self.digest, self.transfer_syntax_uid


def known(connection: Connection, arrival: Arrival) -> bool:
    """Tell whether exactly these bytes are held already, and count."""
    rows = connection.execute(_HELD, {"uids": [arrival.head.SOPInstanceUID]})
    return any(_key(row) == arrival.bytes_key and _counts(row) for row in rows)


def record(connection: Connection, arrivals: Sequence[Arrival]) -> list[bool]:
    """Record Instances and the work that their Studies become; for each, tell whether it is new.

    What is held already, and counts, is not new. Bytes that others have replaced, or that were let go, count
    again because they came again. The caller holds the files (:func:`pacs_ai.ledger.retention.hold_files`).
    """
    at = now()
    uids = sorted({one.head.SOPInstanceUID for one in arrivals})
    held = {_key(row): row for row in connection.execute(_HELD, {"uids": uids})}
    sources = {row.sop_instance_uid for row in held.values() if row.role == "source"}
    own = set(connection.scalars(_OWN, {"uids": uids}))
    added: dict[tuple[str, str, str], dict[str, Any]] = {}
    revived: dict[int, dict[str, Any]] = {}
    new: list[bool] = []
    changed: list[tuple[Arrival, str]] = []
    for one in arrivals:
        row = held.get(one.bytes_key)
        role = "own" if one.head.SOPInstanceUID in own else one.head.role
        is_new = one.bytes_key not in added and (
            row is None or not (_counts(row) or row.id in revived)
        )
        new.append(is_new)
        if not is_new:
            continue
        changed.append((one, role))
        if row is not None:
            revived[row.id] = {"row": row.id, "at": at}
            continue
        twin = role == "source" and one.head.SOPInstanceUID in sources
        added[one.bytes_key] = _row(one, role, "unchecked" if twin else "kept", at)
        if role == "source":
            sources.add(one.head.SOPInstanceUID)
    _note_studies(connection, [one for one, _ in changed], at)
    if added:
        connection.execute(_insert(connection.dialect.name), [*added.values()])
    if revived:
        connection.execute(_REVIVE, [*revived.values()])
    _ask_to_assemble(connection, (one for one, role in changed if role == "source"))
    return new


def _counts(row: Any) -> bool:
    return row.state != "replaced" and row.removed_at is None


def _key(row: Any) -> tuple[str, str, str]:
    return row.sop_instance_uid, row.digest, row.transfer_syntax_uid


def _row(one: Arrival, role: str, state: str, at: Any) -> dict[str, Any]:
    return {
        "sop_instance_uid": one.head.SOPInstanceUID,
        "sop_class_uid": one.head.SOPClassUID,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "study_instance_uid": one.head.StudyInstanceUID,
        "series_instance_uid": one.head.SeriesInstanceUID,
        "modality": one.head.Modality[:16],
        "digest": one.digest,
        "size": one.size,
        "role": role,
        "state": state,
        "peer": one.peer,
        "received_at": at,
    }


def _note_studies(connection: Connection, arrivals: Sequence[Arrival], at: Any) -> None:
    first = {one.head.StudyInstanceUID: one.peer for one in reversed(arrivals)}
    if not first:
        return
    rows = [
        {
            "study_instance_uid": study,
            "peer": peer,
            "accession_number": "",
            "first_at": at,
            "last_at": at,
        }
        for study, peer in sorted(first.items())
    ]
    connection.execute(_note(connection.dialect.name), rows)


def _ask_to_assemble(connection: Connection, arrivals: Iterable[Arrival]) -> None:
    last = {one.head.StudyInstanceUID: one.quiet for one in arrivals}
    for study, quiet in sorted(last.items()):
        work.add(
            connection,
            Kind.ASSEMBLE,
            queue=work.ASSEMBLE,
            subject=study,
            study=study,
            not_before=now() + quiet,
        )
