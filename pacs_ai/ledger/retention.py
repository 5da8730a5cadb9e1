"""What retention asks and writes: which Studies have ended, what was let go, what may be removed.

The argument why nothing that counts is ever removed stands in :mod:`pacs_ai.retention`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from pacs_ai.ledger import events, tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import (
    lock_instances,
    lock_spool,
    lock_studies,
    share_spool,
    upsert,
)
from pacs_ai.ledger.rows import State

_ACTOR = "retention"
_ASKED = 500


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that was let go; ``transfer_syntax_uid`` is empty for the results of a Job."""

    digest: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one Study whose work has ended, and since when."""

    since: datetime
    size: int


def hold_files(
    connection: Connection, studies: Collection[str], instances: Collection[str] = ()
) -> None:
    """Let no file be removed until this transaction ends: look now whether it is there, then count on it.

    Parameters
    ----------
    studies : collection of str
        Study Instance UIDs that the transaction writes about.
    instances : collection of str
        SOP Instance UIDs that it records: another listener may take one under another Study.
    """
    lock_studies(connection, studies)
    lock_instances(connection, instances)
    share_spool(connection)


# ---------------------------------------------------------------------- which Studies


def _about(table: FromClause) -> ColumnElement[bool]:
    return table.c.study_instance_uid == tables.studies.c.study_instance_uid


def _has_ended() -> ColumnElement[bool]:
    """Tell whether nothing of a Study is under way, waits for a person, or is still to be delivered."""
    row, later = tables.work, tables.work.alias()
    of_same = and_(
        later.c.kind == row.c.kind, later.c.queue == row.c.queue, later.c.subject == row.c.subject
    )
    overtaken = exists().where(of_same, later.c.created_at > row.c.created_at).correlate(row)
    troubled = and_(row.c.state.in_([State.HELD, State.FAILED]), ~overtaken)
    under_way = row.c.state.in_([State.READY, State.RUNNING])
    held, made, sent = tables.instances, tables.objects, tables.deliveries
    unsettled = and_(_about(held), held.c.state.in_(["unchecked", "conflict"]))
    unsent = exists().where(
        _about(made),
        made.c.superseded_at.is_(None),
        sent.c.sop_instance_uid == made.c.sop_instance_uid,
        sent.c.state.in_(["pending", "refused"]),
    )
    # What a person rejected is never frozen: a Study of nothing else has ended without a version.
    unfrozen = and_(
        exists().where(_about(held), held.c.role == "source", held.c.state == "kept"),
        ~exists().where(_about(tables.versions)),
    )
    open_work = exists().where(_about(row), or_(under_way, troubled))
    return ~or_(*(open_work, exists().where(unsettled), unsent, unfrozen))


def _has_sources() -> ColumnElement[bool]:
    return exists().where(_about(tables.instances), tables.instances.c.removed_at.is_(None))


def _has_results() -> ColumnElement[bool]:
    made, jobs = tables.objects, tables.jobs
    kept = and_(jobs.c.results_digest.is_not(None), jobs.c.results_removed_at.is_(None))
    return or_(
        exists().where(_about(made), made.c.removed_at.is_(None)),
        exists().where(_about(jobs), kept),
    )


def _ended_before(cutoff: datetime) -> ColumnElement[bool]:
    studies, row = tables.studies, tables.work
    return and_(
        studies.c.last_at <= cutoff,
        ~exists().where(_about(row), row.c.ended_at > cutoff),
        _has_ended(),
    )


def _oldest(has: ColumnElement[bool], age: timedelta) -> Select[Any]:
    studies = tables.studies
    return (
        select(studies.c.study_instance_uid)
        .where(_ended_before(now() - age), has)
        .order_by(studies.c.last_at)
    )


def sources_due(connection: Connection, age: timedelta) -> str | None:
    """Return a Study that ended this long ago and whose Instances are still kept, or None."""
    study: str | None = connection.scalar(_oldest(_has_sources(), age).limit(1))
    return study


def results_due(connection: Connection, age: timedelta) -> str | None:
    """Return a Study that ended this long ago and whose results are still kept, or None."""
    study: str | None = connection.scalar(_oldest(_has_results(), age).limit(1))
    return study


# ---------------------------------------------------------------------- letting go


def let_sources_go(connection: Connection, study: str, age: timedelta) -> bool:
    """Let a Study's Instances go, unless something of it is under way by now; written as an event."""
    if not _still(connection, study, _oldest(_has_sources(), age)):
        return False
    held = tables.instances
    count, size = _let_go(connection, held, study)
    _tell(connection, study, "sources removed", {"instances": count, "bytes": size}, age)
    return True


def let_results_go(connection: Connection, study: str, age: timedelta) -> bool:
    """Let what was made of a Study go, unless something of it is under way by now; an event too."""
    if not _still(connection, study, _oldest(_has_results(), age)):
        return False
    count, size = _let_go(connection, tables.objects, study)
    jobs = tables.jobs
    mine = and_(
        jobs.c.study_instance_uid == study,
        jobs.c.results_digest.is_not(None),
        jobs.c.results_removed_at.is_(None),
    )
    _ask_removal(connection, select(jobs.c.results_digest, literal("")).where(mine))
    connection.execute(update(jobs).where(mine).values(results_removed_at=now()))
    _tell(connection, study, "results removed", {"objects": count, "bytes": size}, age)
    return True


def _still(connection: Connection, study: str, due: Select[Any]) -> bool:
    lock_studies(connection, [study])
    mine = due.where(tables.studies.c.study_instance_uid == study)
    return connection.scalar(mine) is not None


def _let_go(connection: Connection, table: Table, study: str) -> tuple[int, int]:
    mine = and_(table.c.study_instance_uid == study, table.c.removed_at.is_(None))
    sizes = select(func.count(), func.coalesce(func.sum(table.c.size), 0)).where(mine)
    count, size = connection.execute(sizes).one()
    _ask_removal(connection, select(table.c.digest, table.c.transfer_syntax_uid).where(mine))
    connection.execute(update(table).where(mine).values(removed_at=now()))
    return count, int(size)


def _ask_removal(connection: Connection, files: Select[Any]) -> None:
    table = tables.removals
    connection.execute(
        upsert(connection.dialect.name, table)
        .from_select(["digest", "transfer_syntax_uid"], files.distinct())
        .on_conflict_do_nothing()
    )


def _tell(
    connection: Connection, study: str, kind: str, detail: dict[str, int], age: timedelta
) -> None:
    said = ", ".join(f"{number} {name}" for name, number in detail.items())
    reason = (
        f"{said}: everything of the Study ended more than {age.total_seconds() / 86400:g} d ago"
    )
    events.record(connection, kind, actor=_ACTOR, study=study, reason=reason, detail=detail)


# ---------------------------------------------------------------------- removing


def removable(connection: Connection, limit: int) -> list[Removal]:
    """Return files that no row counts on, while none can come to; what counts again is left alone."""
    lock_spool(connection)
    table = tables.removals
    connection.execute(delete(table).where(_counts()))
    return _removals(connection, limit)


def _removals(connection: Connection, limit: int) -> list[Removal]:
    table = tables.removals
    rows = connection.execute(select(table).order_by(table.c.digest).limit(limit))
    return [Removal(row.digest, row.transfer_syntax_uid) for row in rows]


def uncounted(connection: Connection, files: Sequence[Removal]) -> list[Removal]:
    """Return those of these files that no row counts on, while none can come to."""
    lock_spool(connection)
    return strays(connection, files)


def strays(connection: Connection, files: Sequence[Removal]) -> list[Removal]:
    """Return those of these files that no row counts on."""
    counted = set()
    for start in range(0, len(files), _ASKED):
        counted |= _counted(connection, [one.digest for one in files[start : start + _ASKED]])
    return [one for one in files if one not in counted]


def _counted(connection: Connection, digests: Sequence[str]) -> set[Removal]:
    jobs = tables.jobs
    named = [
        select(one.c.digest, one.c.transfer_syntax_uid).where(
            one.c.digest.in_(digests), one.c.removed_at.is_(None)
        )
        for one in (tables.instances, tables.objects)
    ]
    results = select(jobs.c.results_digest, literal("")).where(
        jobs.c.results_digest.in_(digests), jobs.c.results_removed_at.is_(None)
    )
    return {Removal(*row) for row in connection.execute(union_all(*named, results))}


def ask_removal(connection: Connection, files: Sequence[Removal]) -> None:
    """Put files on the list; what a row counts on by then is struck off again."""
    rows = [{"digest": one.digest, "transfer_syntax_uid": one.transfer_syntax_uid} for one in files]
    statement = upsert(connection.dialect.name, tables.removals).on_conflict_do_nothing()
    connection.execute(statement, rows)


def has_removals(connection: Connection) -> bool:
    """Tell whether files wait to be removed."""
    return bool(_removals(connection, 1))


def _counts() -> ColumnElement[bool]:
    """Tell whether a row counts on a file that was let go before: its bytes came, or were made, again."""
    table, jobs = tables.removals, tables.jobs
    named = [
        exists().where(
            one.c.digest == table.c.digest,
            one.c.transfer_syntax_uid == table.c.transfer_syntax_uid,
            one.c.removed_at.is_(None),
        )
        for one in (tables.instances, tables.objects)
    ]
    results = exists().where(
        table.c.transfer_syntax_uid == "",
        jobs.c.results_digest == table.c.digest,
        jobs.c.results_removed_at.is_(None),
    )
    return or_(*named, results)


def forget(connection: Connection, removed: Collection[Removal]) -> None:
    """Strike files from the list, because they are gone for good."""
    table = tables.removals
    names = [(one.digest, one.transfer_syntax_uid) for one in removed]
    connection.execute(
        delete(table).where(tuple_(table.c.digest, table.c.transfer_syntax_uid).in_(names))
    )


# ---------------------------------------------------------------------- what there is


def kept_bytes(connection: Connection) -> int:
    """Return how many bytes of Instances and of SOP Instances that the gateway made are kept."""
    return sum(
        int(connection.scalar(select(func.sum(one.c.size)).where(one.c.removed_at.is_(None))) or 0)
        for one in (tables.instances, tables.objects)
    )


def ended_sources(connection: Connection) -> list[Held]:
    """Return what Studies that have ended keep of Instances, and since when they have."""
    return _ended(connection, tables.instances)


def ended_results(connection: Connection) -> list[Held]:
    """Return what Studies that have ended keep of SOP Instances made from them, and since when."""
    return _ended(connection, tables.objects)


def _ended(connection: Connection, table: Table) -> list[Held]:
    studies, row = tables.studies, tables.work
    kept = and_(_about(table), table.c.removed_at.is_(None))
    size = select(func.sum(table.c.size)).where(kept).scalar_subquery()
    last = select(func.max(row.c.ended_at)).where(_about(row)).scalar_subquery()
    rows: Sequence[Any] = connection.execute(
        select(studies.c.last_at, last.label("ended_at"), size.label("size")).where(
            _has_ended(), exists().where(kept)
        )
    ).all()
    return [Held(max(row.last_at, row.ended_at or row.last_at), int(row.size)) for row in rows]
