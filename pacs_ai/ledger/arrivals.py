"""Instances whose bytes are durable become facts: many of them in one transaction.

What a commit costs is shared by every association that stores at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Dialect,
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

_NEXT = timedelta(microseconds=1)
"""The least by which two times in the ledger differ."""

_MADE = "made"
"""Stands for a role in what is read, where the gateway made the object itself."""


def _of_uid(_: str) -> Any:
    held, own = table.c, tables.objects.c
    return union_all(
        select(
            *(held.id, held.digest, held.transfer_syntax_uid, held.state, held.role),
            *(held.removed_at, held.received_at),
        ).where(held.sop_instance_uid == bindparam("uid")),
        select(*(null(),) * 4, literal_column(f"'{_MADE}'"), null(), null()).where(
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


def compile_statements(dialect: Dialect) -> None:
    """Compile what an Instance needs, which takes as long as some ten of them."""
    for statement in (_OF_UID, _ADD, _REVIVE, _NOTE_STUDY):
        statement.compile(dialect)
    work.compile_statements(dialect)


_Key = tuple[str, str, str]
"""SOP Instance UID, digest and Transfer Syntax UID: exactly these bytes."""


class Arrival(NamedTuple):
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
    def bytes_key(self) -> _Key:
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
    return any(
        row.role != _MADE and row.bytes_key == arrival.bytes_key and row.counts
        for row in _of(connection, arrival.head.SOPInstanceUID)
    )


def record(
    connection: Connection, arrivals: Sequence[Arrival], *, noted: Collection[str] = ()
) -> Recorded:
    """Record Instances and the work that their Studies become.

    Studies in ``noted`` were asked to be assembled a moment ago and wait for quiet still: nothing about them
    is written again.

    What is held already, and counts, is not new. Bytes that others have replaced, or that were let go, count
    again because they came again. Under one SOP Instance UID what came later is dated later, whatever the
    clock says: by these dates a correction follows what it corrects. The caller holds the files
    (:func:`pacs_ai.ledger.retention.hold_files`).
    """
    at = now()
    held, twins, own = _held(connection, {one.head.SOPInstanceUID for one in arrivals})
    added: dict[_Key, dict[str, Any]] = {}
    revived: dict[int, datetime] = {}
    newest = _newest(connection, held.values())
    new: list[bool] = []
    about: list[tuple[Arrival, str]] = []
    for one in arrivals:
        head, key = one.head, one.bytes_key
        known_as = held.get(key)
        is_new = key not in added and (
            known_as is None or not (known_as.counts or known_as.id in revived)
        )
        new.append(is_new)
        if not is_new:
            continue
        role = "own" if head.SOPInstanceUID in own else head.role
        if head.StudyInstanceUID not in noted:
            about.append((one, role))
        uid = head.SOPInstanceUID
        # A clock that was set back must not make a correction older than what it corrects.
        newest[uid] = max(at, newest[uid] + _NEXT) if uid in newest else at
        if known_as is not None:
            revived[known_as.id] = newest[uid]
            continue
        twin = role == "source" and uid in twins
        added[key] = _row(one, role, "unchecked" if twin else "kept", newest[uid])
        if role == "source":
            twins.add(uid)
    if about:
        _note_studies(connection, [one for one, _ in about], at)
    if added:
        _ADD.run_each(connection, [*added.values()])
    if revived:
        _REVIVE.run_each(connection, [{"row": row, "at": when} for row, when in revived.items()])
    asked = {one.head.StudyInstanceUID: one.quiet for one, role in about if role == "source"}
    _ask_to_assemble(connection, asked)
    return Recorded(new, asked)


class _Held(NamedTuple):
    """What the ledger holds of a SOP Instance UID; its times are as the driver gives them."""

    id: int
    digest: str
    transfer_syntax_uid: str
    state: str
    role: str
    removed_at: Any
    received_at: Any
    uid: str

    @property
    def bytes_key(self) -> _Key:
        return self.uid, self.digest, self.transfer_syntax_uid

    @property
    def counts(self) -> bool:
        return self.state != "replaced" and self.removed_at is None


def _held(
    connection: Connection, uids: Iterable[str]
) -> tuple[dict[_Key, _Held], set[str], set[str]]:
    """Return what is held under SOP Instance UIDs, and which of them are a source's and the gateway's own."""
    held: dict[_Key, _Held] = {}
    twins, own = set(), set()
    for uid in sorted(uids):
        for row in _of(connection, uid):
            if row.role == _MADE:
                own.add(uid)
                continue
            held[row.bytes_key] = row
            if row.role == "source":
                twins.add(uid)
    return held, twins, own


def _newest(connection: Connection, held: Iterable[_Held]) -> dict[str, datetime]:
    """Return when the newest of what is held under each SOP Instance UID came."""
    newest: dict[str, datetime] = {}
    for row in held:
        at = _time(connection.dialect, row.received_at)
        newest[row.uid] = max(at, newest.get(row.uid, at))
    return newest


def _time(dialect: Dialect, given: Any) -> datetime:
    """Return the time that a driver gave: SQLite's gives text, PostgreSQL's a naive time."""
    processor: Any = table.c.received_at.type.dialect_impl(dialect).result_processor(dialect, None)
    at: datetime = processor(given)
    return at


def _of(connection: Connection, uid: str) -> list[_Held]:
    """Return what is held under a SOP Instance UID, and a row of role ``made`` when the gateway made it."""
    return [_Held._make((*row, uid)) for row in _OF_UID.run(connection, {"uid": uid}).fetchall()]


def _row(one: Arrival, role: str, state: str, at: datetime) -> dict[str, Any]:
    head = one.head
    return {
        "sop_instance_uid": head.SOPInstanceUID,
        "sop_class_uid": head.SOPClassUID,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "study_instance_uid": head.StudyInstanceUID,
        "series_instance_uid": head.SeriesInstanceUID,
        "modality": head.Modality[:16],
        "digest": one.digest,
        "size": one.size,
        "role": role,
        "state": state,
        "peer": one.peer,
        "received_at": at,
    }


def _note_studies(connection: Connection, arrivals: Sequence[Arrival], at: datetime) -> None:
    first = {one.head.StudyInstanceUID: one.peer for one in reversed(arrivals)}
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


def _ask_to_assemble(connection: Connection, asked: Mapping[str, timedelta]) -> None:
    for study, quiet in sorted(asked.items()):
        work.add_assembly(connection, study, not_before=now() + quiet)
