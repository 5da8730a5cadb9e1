"""Instances whose bytes are durable become facts: many of them in one transaction.

What a commit costs is shared by every association that stores at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    bindparam,
    case,
    literal_column,
    null,
    select,
    union_all,
    update,
)

from pacs_ai.ledger import tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import upsert
from pacs_ai.ledger.prepared import Prepared
from pacs_ai.study import Head

table = tables.instances


def _of_uid(_: str) -> Any:
    held, own = table.c, tables.objects.c
    return union_all(
        select(
            held.id, held.digest, held.transfer_syntax_uid, held.state, held.role, held.removed_at
        ).where(held.sop_instance_uid == bindparam("uid")),
        select(null(), null(), null(), null(), literal_column("'made'"), null()).where(
            own.sop_instance_uid == bindparam("uid")
        ),
    )


_OF_UID = Prepared(_of_uid)
"""What is held under a SOP Instance UID, and a row of role ``made`` when the gateway made it itself."""

_COLUMNS = (
    *("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_instance_uid"),
    *("series_instance_uid", "modality", "digest", "size", "role", "state", "peer", "received_at"),
)
# On PostgreSQL another listener may have recorded the same bytes under another Study's lock.
_ADD = Prepared(
    lambda dialect: upsert(dialect, table).inline().on_conflict_do_nothing(), columns=_COLUMNS
)

_REVIVE = Prepared(
    lambda _: (
        update(table)
        .where(table.c.id == bindparam("row"))
        .values(
            # What was let go keeps the state that a comparison gave it.
            state=case((table.c.state == "replaced", "unchecked"), else_=table.c.state),
            received_at=bindparam("at"),
            removed_at=null(),
        )
    )
)


def _note_study(dialect: str) -> Any:
    statement = upsert(dialect, tables.studies)
    return statement.on_conflict_do_update(
        index_elements=["study_instance_uid"], set_={"last_at": statement.excluded.last_at}
    )


_NOTE_STUDY = Prepared(
    _note_study,
    columns=("study_instance_uid", "peer", "accession_number", "first_at", "last_at"),
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


class Recorded(NamedTuple):
    """What became of Instances.

    Attributes
    ----------
    new : list of bool
        For each, whether it is new.
    asked : dict of str to timedelta
        Studies that were asked to be assembled, and how long they must be quiet before.
    """

    new: list[bool]
    asked: dict[str, timedelta]


def known(connection: Connection, arrival: Arrival) -> bool:
    """Tell whether exactly these bytes are held already, and count."""
    held, _ = _of(connection, arrival.head.SOPInstanceUID)
    return any(row.bytes_key == arrival.bytes_key and row.counts for row in held)


def record(
    connection: Connection, arrivals: Sequence[Arrival], *, noted: Collection[str] = ()
) -> Recorded:
    """Record Instances and the work that their Studies become.

    Studies in ``noted`` were asked to be assembled a moment ago and wait for quiet still: nothing about them
    is written again.

    What is held already, and counts, is not new. Bytes that others have replaced, or that were let go, count
    again because they came again. The caller holds the files (:func:`pacs_ai.ledger.retention.hold_files`).
    """
    at = now()
    held: dict[tuple[str, str, str], _Held] = {}
    twins, own = set(), set()
    for uid in sorted({one.head.SOPInstanceUID for one in arrivals}):
        rows, made = _of(connection, uid)
        held |= {row.bytes_key: row for row in rows}
        if made:
            own.add(uid)
        if any(row.role == "source" for row in rows):
            twins.add(uid)
    added: dict[tuple[str, str, str], dict[str, Any]] = {}
    revived: set[int] = set()
    new: list[bool] = []
    changed: list[tuple[Arrival, str]] = []
    for one in arrivals:
        row = held.get(one.bytes_key)
        role = "own" if one.head.SOPInstanceUID in own else one.head.role
        is_new = one.bytes_key not in added and (
            row is None or not (row.counts or row.id in revived)
        )
        new.append(is_new)
        if not is_new:
            continue
        changed.append((one, role))
        if row is not None:
            revived.add(row.id)
            continue
        twin = role == "source" and one.head.SOPInstanceUID in twins
        added[one.bytes_key] = _row(one, role, "unchecked" if twin else "kept", at)
        if role == "source":
            twins.add(one.head.SOPInstanceUID)
    about = [(one, role) for one, role in changed if one.head.StudyInstanceUID not in noted]
    _note_studies(connection, [one for one, _ in about], at)
    if added:
        _ADD.run_each(connection, [*added.values()])
    if revived:
        _REVIVE.run_each(connection, [{"row": row_id, "at": at} for row_id in revived])
    sources = [one for one, role in about if role == "source"]
    _ask_to_assemble(connection, sources)
    return Recorded(new, {one.head.StudyInstanceUID: one.quiet for one in sources})


class _Held(NamedTuple):
    """What the ledger holds of a SOP Instance UID."""

    id: int
    digest: str
    transfer_syntax_uid: str
    state: str
    role: str
    removed_at: Any
    uid: str

    @property
    def bytes_key(self) -> tuple[str, str, str]:
        return self.uid, self.digest, self.transfer_syntax_uid

    @property
    def counts(self) -> bool:
        return self.state != "replaced" and self.removed_at is None


def _of(connection: Connection, uid: str) -> tuple[list[_Held], bool]:
    """Return what is held under a SOP Instance UID, and whether the gateway made it."""
    rows = [_Held._make((*row, uid)) for row in _OF_UID.run(connection, {"uid": uid}).fetchall()]
    return [row for row in rows if row.role != "made"], any(row.role == "made" for row in rows)


def _row(one: Arrival, role: str, state: str, at: datetime) -> dict[str, Any]:
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


def _note_studies(connection: Connection, arrivals: Sequence[Arrival], at: datetime) -> None:
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
    _NOTE_STUDY.run_each(connection, rows)


def _ask_to_assemble(connection: Connection, arrivals: Iterable[Arrival]) -> None:
    last = {one.head.StudyInstanceUID: one.quiet for one in arrivals}
    for study, quiet in sorted(last.items()):
        work.add_assembly(connection, study, not_before=now() + quiet)
