"""The ``work`` table: claims, leases, fences, attempts, back-off and the table of transitions.

Nothing else in the gateway knows how work is retried. A step that ends without an outcome (a crash, a
killed process, a lease that ran out) is a *strike*; after three the work is held. A refusal that may pass
is no strike: it is tried again until the deadline.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Row,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from pacs_ai.errors import LeaseLostError
from pacs_ai.ledger import events, tables
from pacs_ai.ledger.clock import AHEAD, now
from pacs_ai.ledger.dialects import lock_queue, lock_studies
from pacs_ai.ledger.prepared import Prepared
from pacs_ai.ledger.rows import (
    TRANSITIONS,
    Kind,
    State,
    due_at,
    expired,
    in_question,
    orphaned_from,
    run_out,
    startable,
)
from pacs_ai.settings import WorkTimes

table = tables.work

ASSEMBLE = "assemble"
ROUTE = "route"
ENCODE = "encode"
WORKLIST = "worklist"


def infer_queue(endpoint: str) -> str:
    """Return the queue of an endpoint."""
    return f"infer.{endpoint}"


def deliver_queue(destination: str) -> str:
    """Return the queue of a destination."""
    return f"deliver.{destination}"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row of work that this process may carry out until its lease ends.

    Attributes
    ----------
    id, kind, queue, subject : str
        ``subject`` is the Study Instance UID, Study version or Job it is about.
    study : str
        Study Instance UID.
    fence : int
        Grows with every claim; a commit with an older one is refused.
    created_at : datetime
        When the work was asked for; every date in a result derives from it.
    started_at : datetime
    deadline : datetime or None
    """

    id: str
    kind: Kind
    queue: str
    subject: str
    study: str
    fence: int
    attempts: int
    created_at: datetime
    started_at: datetime
    deadline: datetime | None


_PUT_OFF = Prepared(
    lambda _: (
        update(table)
        .where(
            table.c.kind == bindparam("of_kind"),
            table.c.subject == bindparam("about"),
            table.c.queue == bindparam("waits_in"),
            table.c.state == State.READY.value,
            table.c.attempts == 0,
        )
        .values(not_before=bindparam("start"))
    )
)


def compile_statements(dialect: Dialect) -> None:
    """Compile what is asked whenever a Study is to be assembled."""
    _PUT_OFF.compile(dialect)


def add(
    connection: Connection,
    kind: Kind,
    *,
    queue: str,
    subject: str,
    study: str,
    not_before: datetime | None = None,
    deadline: datetime | None = None,
    priority: int = 0,
) -> None:
    """Ask for work; a ready row for the same subject and queue is used again, its start put off."""
    at = now()
    same = {"of_kind": kind.value, "about": subject, "waits_in": queue}
    if _PUT_OFF.run(connection, {**same, "start": not_before or at}).rowcount:
        return
    connection.execute(
        insert(table).values(
            id=str(uuid.uuid4()),
            kind=kind,
            queue=queue,
            subject=subject,
            study_instance_uid=study,
            state=State.READY,
            attempts=0,
            strikes=0,
            fence=0,
            not_before=not_before or at,
            priority=priority,
            deadline=deadline,
            created_at=at,
        )
    )


def add_assembly(connection: Connection, study: str, *, not_before: datetime) -> None:
    """Ask for a look whether a Study is complete; one that is asked for already is put off."""
    add(
        connection,
        Kind.ASSEMBLE,
        queue=ASSEMBLE,
        subject=study,
        study=study,
        not_before=not_before,
    )


def add_once(
    connection: Connection,
    kind: Kind,
    *,
    queue: str,
    subject: str,
    study: str,
    deadline: datetime | None = None,
) -> None:
    """Ask for work that is done once for its subject, whatever became of it."""
    asked = select(table.c.id).where(table.c.kind == kind, table.c.subject == subject)
    if connection.scalar(asked) is None:
        add(connection, kind, queue=queue, subject=subject, study=study, deadline=deadline)


def is_asked(connection: Connection, kind: Kind, subject: str) -> bool:
    """Tell whether work for a subject was asked for and not superseded since."""
    asked = select(table.c.id).where(
        table.c.kind == kind, table.c.subject == subject, table.c.state != State.SUPERSEDED
    )
    return connection.scalar(asked) is not None


def supersede_waiting(connection: Connection, subjects: Collection[str]) -> None:
    """End what nobody asks for any more and is not under way: of Jobs, versions and their pages."""
    which = and_(
        table.c.kind.in_([Kind.ROUTE, Kind.INFER, Kind.ENCODE]),
        table.c.subject.in_([*subjects]),
        table.c.state.in_([State.READY, State.HELD, State.FAILED]),
    )
    _supersede(connection, which, "a later Study version does not ask for it")


def supersede_deliveries(connection: Connection, study: str, *, but: Collection[str]) -> None:
    """End a Study's held and failed deliveries, but those to destinations that still have to get some."""
    which = and_(
        table.c.kind == Kind.DELIVER,
        table.c.study_instance_uid == study,
        table.c.state.in_([State.HELD, State.FAILED]),
        table.c.queue.not_in([deliver_queue(one) for one in but]),
    )
    _supersede(connection, which, "nothing that it would send is asked for any more")


def _supersede(connection: Connection, which: ColumnElement[bool], reason: str) -> None:
    # A worker may be claiming one of them.
    for row in connection.execute(select(table).where(which).with_for_update()).all():
        _move(connection, row, State.SUPERSEDED, reason=reason, ended_at=now())


def add_worklist(connection: Connection, study: str) -> None:
    """Ask the worklist rules to look at a Study again."""
    add(connection, Kind.WORKLIST, queue=WORKLIST, subject=study, study=study)


def looks(connection: Connection, study: str) -> int:
    """Return how many looks at a Study for the worklist have ended: another number is another's look."""
    ended = select(func.count()).where(
        table.c.study_instance_uid == study,
        table.c.kind == Kind.WORKLIST,
        table.c.state == State.DONE,
    )
    return connection.scalar(ended) or 0


def is_in_question(connection: Connection, work: Claimed) -> bool:
    """Tell whether what came since a delivery was claimed may change what it sends."""
    found = select(table.c.id).where(table.c.id == work.id, in_question())
    return connection.scalar(found) is not None


def page_subject(version_id: str) -> str:
    """Return the subject of the work that writes a Study version's page."""
    return f"page:{version_id}"


def add_page_when_settled(connection: Connection, study: str) -> None:
    """Ask for the Study's page once every Job of its latest version has ended, well or badly."""
    versions, link, jobs = tables.versions, tables.version_jobs, tables.jobs
    newest = connection.scalar(
        select(versions.c.id)
        .where(versions.c.study_instance_uid == study)
        .order_by(versions.c.number.desc())
        .limit(1)
    )
    under_way = select(table.c.subject).where(
        table.c.kind == Kind.INFER, table.c.state.in_([State.READY, State.RUNNING])
    )
    unsettled = connection.scalar(
        select(func.count())
        .select_from(link.join(jobs, link.c.job_id == jobs.c.id))
        .where(link.c.version_id == newest, jobs.c.outcome.is_(None), jobs.c.id.in_(under_way))
    )
    if newest is not None and not unsettled:
        # Asked for each time they settle: after a release they may have come to something else.
        add(connection, Kind.ENCODE, queue=ENCODE, subject=page_subject(newest), study=study)


def claim(
    connection: Connection, queue: str, *, times: WorkTimes, limit: int, paused: Collection[Kind]
) -> Claimed | None:
    """Take the best ready row of a queue, or None.

    Parameters
    ----------
    queue : str
    times : WorkTimes
        Lease and strikes.
    limit : int
        How many seats the rows of the queue that are under way may hold together; each begins with one.
    paused : collection of Kind
        Kinds that nobody may start now.
    """
    lock_queue(connection, queue)  # the limit is counted and used by one at a time
    at = now()
    _strike_expired(connection, queue, times, at)
    if _seats_taken(connection, queue) >= limit:
        return None
    row = connection.execute(
        select(table)
        .where(table.c.queue == queue, due_at(at), table.c.kind.not_in([*paused]))
        .order_by(
            table.c.priority.desc(),
            case((table.c.deadline.is_(None), 1), else_=0),
            table.c.deadline,
            table.c.created_at,
        )
        .limit(1)
        .with_for_update(skip_locked=True)  # who holds the row is putting its start off
    ).first()
    if row is None:
        return None
    _move(
        connection,
        row,
        State.RUNNING,
        attempts=row.attempts + 1,
        fence=row.fence + 1,
        seats=1,
        lease_until=at + times.lease,
        started_at=at,
    )
    return Claimed(
        id=row.id,
        kind=Kind(row.kind),
        queue=row.queue,
        subject=row.subject,
        study=row.study_instance_uid,
        fence=row.fence + 1,
        attempts=row.attempts + 1,
        created_at=row.created_at,
        started_at=at,
        deadline=row.deadline,
    )


def renew(connection: Connection, work: Claimed, *, times: WorkTimes) -> bool:
    """Extend the lease; False when the work belongs to another process by now."""
    result = connection.execute(
        update(table).where(_mine(work)).values(lease_until=now() + times.lease)
    )
    return bool(result.rowcount)


def hold_seats(connection: Connection, work: Claimed, *, wanted: int, busy: int, limit: int) -> int:
    """Hold seats of the queue besides the first one, as long as no ready work waits for them.

    They lie on the claimed row: whatever ends its lease gives them back.

    Parameters
    ----------
    work : Claimed
    wanted : int
        How many to hold, the first one included.
    busy : int
        How many are in use: these are not given back.
    limit : int
        Of the queue's seats, as :func:`claim` takes it.

    Returns
    -------
    int
        How many it holds from now on, one at least.

    Raises
    ------
    LeaseLostError
        When another process holds the work by now.
    """
    lock_queue(connection, work.queue)  # seats are counted and taken by one at a time
    row = _own_row(connection, work)
    others = _seats_taken(connection, work.queue) - row.seats
    ready = select(func.count()).where(table.c.queue == work.queue, due_at(now()))
    free = limit - others - (connection.scalar(ready) or 0)
    seats = int(max(1, min(busy, row.seats), min(wanted, free)))
    if seats != row.seats:
        connection.execute(update(table).where(_mine(work)).values(seats=seats))
    return seats


def finish(
    connection: Connection, work: Claimed, state: State, *, reason: str | None = None
) -> None:
    """End a claimed row as done, held or failed.

    Raises
    ------
    LeaseLostError
        When another process holds it by now: the caller's transaction must not be kept.
    """
    _move(connection, _own_row(connection, work), state, reason=reason, ended_at=now())


def again_later(
    connection: Connection, work: Claimed, *, times: WorkTimes, reason: str, after: float | None
) -> State:
    """Put a claimed row back after a refusal that may pass, or fail it when its deadline is over.

    Parameters
    ----------
    after : float or None
        Seconds the other side asked for; otherwise the back-off table with full jitter.
    """
    row = _own_row(connection, work)
    at = now()
    table_delay = times.backoff[min(work.attempts, len(times.backoff)) - 1].total_seconds()
    delay = min(after, 3600.0) if after is not None else random.uniform(0.5, 1) * table_delay  # noqa: S311 - jitter
    start = at + timedelta(seconds=delay)
    if work.deadline is not None and start > work.deadline:
        start = work.deadline  # one last time
    if work.deadline is not None and at >= work.deadline:
        _move(connection, row, State.FAILED, reason=f"{reason}; the deadline is over", ended_at=at)
        return State.FAILED
    _move(connection, row, State.READY, reason=reason, not_before=start)
    return State.READY


def strike(connection: Connection, work: Claimed, *, times: WorkTimes, reason: str) -> State:
    """Count an attempt that ended without an outcome: ready again, or held after the last strike."""
    return _strike(connection, _own_row(connection, work), times, reason, now())


def release_held(
    connection: Connection, study: str, *, actor: str, patience: Mapping[Kind, timedelta]
) -> int:
    """Let a Study's held and failed rows start again, because a person said so; return how many.

    Parameters
    ----------
    patience : mapping of Kind to timedelta
        How long rows that have a deadline have from now on: past it, one refusal would be their last.
    """
    lock_studies(connection, [study])
    rows = connection.execute(
        select(table)
        .where(table.c.study_instance_uid == study, table.c.state.in_([State.HELD, State.FAILED]))
        .with_for_update()
    ).all()
    at = now()
    for row in rows:
        fresh: dict[str, object] = {"strikes": 0, "attempts": 0, "not_before": at, "ended_at": None}
        if row.deadline is not None and Kind(row.kind) in patience:
            fresh["deadline"] = at + patience[Kind(row.kind)]
        _move(connection, row, State.READY, actor=actor, **fresh)
    for kind, time in patience.items():
        # What waited for that person's word has as long; what is held or failed was given it above.
        connection.execute(
            update(table)
            .where(
                table.c.study_instance_uid == study,
                table.c.kind == kind,
                table.c.state == State.READY,
                table.c.deadline < at + time,
            )
            .values(deadline=at + time)
        )
    return len(rows)


def put_deadlines_off(connection: Connection, kind: Kind, *, since: datetime) -> None:
    """Give what is ready as long as it could not be tried, from a moment until now."""
    waiting = select(table.c.id, table.c.deadline, table.c.created_at).where(
        table.c.kind == kind, table.c.state == State.READY, table.c.deadline.is_not(None)
    )
    at = now()
    for row in connection.execute(waiting.with_for_update(skip_locked=True)).all():
        deadline = row.deadline + max(timedelta(), at - max(since, row.created_at))
        connection.execute(update(table).where(table.c.id == row.id).values(deadline=deadline))


def due(
    connection: Connection, *, times: WorkTimes, paused: Collection[Kind]
) -> list[tuple[str, str]]:
    """Return (queue, id) of every row that may start or whose lease ran out; paused kinds left out."""
    at = now()
    rows = connection.execute(
        select(table.c.queue, table.c.id)
        .where(or_(due_at(at), expired(at, times)), table.c.kind.not_in([*paused]))
        .order_by(table.c.created_at)
    )
    return [(row.queue, row.id) for row in rows]


def backlog(connection: Connection) -> int:
    """Return how many rows could start now and have not."""
    count = select(func.count()).select_from(table).where(due_at(now()))
    return connection.scalar(count) or 0


def waits(connection: Connection) -> bool:
    """Tell whether some work is under way, or will start without anybody's word."""
    found = select(table.c.id).where(or_(table.c.state == State.RUNNING, startable())).limit(1)
    return connection.scalar(found) is not None


def is_moving(connection: Connection, *, times: WorkTimes, since: datetime) -> bool:
    """Tell whether work was claimed since, or somebody holds a lease on some now."""
    at = now()
    leased = and_(table.c.state == State.RUNNING, ~run_out(at, times))
    claimed = table.c.started_at.between(since, at + AHEAD)
    found = select(table.c.id).where(or_(claimed, leased)).limit(1)
    return connection.scalar(found) is not None


def orphans(
    connection: Connection, queues: Collection[str], *, times: WorkTimes
) -> list[Row[tuple[object, ...]]]:
    """Return the rows of queues other than these that nobody works on."""
    return [*connection.execute(select(table).where(orphaned_from(queues, times)))]


def hold_orphans(connection: Connection, queues: Collection[str], *, times: WorkTimes) -> None:
    """Hold the rows of queues other than these that nobody works on, and say why.

    The worker of one that is running may have been stopped with its settings: no lease of another's queue
    ends by itself, because only who claims from a queue ends those of it.
    """
    found = orphans(connection, queues, times=times)
    lock_studies(connection, [row.study_instance_uid for row in found])
    # A worker with older settings may be claiming one of them: then it is not orphaned yet.
    orphaned = select(table).where(orphaned_from(queues, times)).with_for_update(skip_locked=True)
    for row in connection.execute(orphaned).all():
        reason = f"{row.queue} is not in the settings any more: put it back, then release the Study"
        _move(connection, row, State.HELD, reason=reason, ended_at=now())


def _seats_taken(connection: Connection, queue: str) -> int:
    taken = select(func.sum(table.c.seats)).where(
        table.c.queue == queue, table.c.state == State.RUNNING
    )
    return int(connection.scalar(taken) or 0)


def _mine(work: Claimed) -> ColumnElement[bool]:
    return and_(table.c.id == work.id, table.c.fence == work.fence, table.c.state == State.RUNNING)


def _own_row(connection: Connection, work: Claimed) -> Row[tuple[object, ...]]:
    row = connection.execute(select(table).where(_mine(work)).with_for_update()).first()
    if row is None:
        raise LeaseLostError(f"work {work.id} was taken over while this process slept")
    return row


def _strike_expired(connection: Connection, queue: str, times: WorkTimes, at: datetime) -> None:
    over = and_(table.c.queue == queue, expired(at, times))
    # A worker that still commits locks its Study first and its row then: so is it done here.
    lock_studies(connection, connection.scalars(select(table.c.study_instance_uid).where(over)))
    rows = connection.execute(select(table).where(over).with_for_update(skip_locked=True)).all()
    for row in rows:
        _strike(connection, row, times, "an attempt ended without an outcome", at)


def _strike(
    connection: Connection,
    row: Row[tuple[object, ...]],
    times: WorkTimes,
    reason: str,
    at: datetime,
) -> State:
    strikes = row.strikes + 1
    if strikes >= times.strikes:
        text = f"held after {strikes} attempts without an outcome: {reason}"
        _move(connection, row, State.HELD, strikes=strikes, reason=text, ended_at=at)
        return State.HELD
    _move(connection, row, State.READY, strikes=strikes, reason=reason, not_before=at)
    return State.READY


def _move(
    connection: Connection,
    row: Row[tuple[object, ...]],
    state: State,
    *,
    actor: str = "gateway",
    **values: object,
) -> None:
    """Make one allowed transition and its event; nothing else writes ``work.state``."""
    if state not in TRANSITIONS[State(row.state)]:
        raise LeaseLostError(f"work {row.id} is {row.state} and cannot become {state}")
    if state is not State.RUNNING:
        values["lease_until"] = None
    connection.execute(update(table).where(table.c.id == row.id).values(state=state, **values))
    if state is not State.RUNNING:
        events.record(
            connection,
            f"{row.kind} {state}",
            actor=actor,
            study=row.study_instance_uid,
            work_id=row.id,
            reason=str(values.get("reason") or ""),
        )
    if state in (State.HELD, State.FAILED):
        study = str(row.study_instance_uid)
        if row.kind == Kind.INFER:
            add_page_when_settled(connection, study)
        if row.kind != Kind.WORKLIST:
            # Someone must be told: worklist rules may act on held and failed Studies.
            add_worklist(connection, study)
