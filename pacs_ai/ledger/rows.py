"""A row of work: its kinds and states, its moves, and when it may start. Conditions on the table."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import AHEAD, now
from pacs_ai.settings import WorkTimes

table = tables.work


class Kind(StrEnum):
    """What a row of work asks for."""

    ASSEMBLE = "assemble"
    ROUTE = "route"
    INFER = "infer"
    ENCODE = "encode"
    DELIVER = "deliver"
    WORKLIST = "worklist"


class State(StrEnum):
    """Where a row of work stands."""

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    HELD = "held"
    FAILED = "failed"
    SUPERSEDED = "superseded"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.READY: frozenset({State.RUNNING, State.HELD, State.FAILED, State.SUPERSEDED}),
    State.RUNNING: frozenset({State.READY, State.DONE, State.HELD, State.FAILED}),
    State.DONE: frozenset(),
    State.HELD: frozenset({State.READY, State.SUPERSEDED}),
    State.FAILED: frozenset({State.READY, State.SUPERSEDED}),
    State.SUPERSEDED: frozenset(),
}
"""Every move a row may make; :mod:`pacs_ai.ledger.work` makes no other."""


def due_at(at: datetime) -> ColumnElement[bool]:
    """Tell whether a row may start."""
    # A row that a clock dated which was ahead would wait for as long as it was; its next start is dated anew.
    last = func.coalesce(table.c.started_at, table.c.created_at)
    return and_(startable(), or_(table.c.not_before <= at, last > at + AHEAD))


def startable() -> ColumnElement[bool]:
    """Tell whether a row may start when its time has come, without anybody's word."""
    return and_(table.c.state == State.READY, or_(table.c.kind != Kind.DELIVER, ~in_question()))


def in_question() -> ColumnElement[bool]:
    """Tell whether something came to a row's Study that may change whose it is, or what is asked of it.

    Until that is looked at, and while a person must look, nothing of the Study leaves. How a version was
    routed that is not the newest any more changes nothing.
    """
    look, later, versions = table.alias(), table.alias(), tables.versions
    again = exists().where(
        later.c.kind == look.c.kind,
        later.c.subject == look.c.subject,
        later.c.created_at > look.c.created_at,
    )
    newest = (
        select(versions.c.id)
        .where(versions.c.study_instance_uid == table.c.study_instance_uid)
        .order_by(versions.c.number.desc())
        .limit(1)
        .correlate(table)
        .scalar_subquery()
    )
    return exists().where(
        look.c.study_instance_uid == table.c.study_instance_uid,
        or_(
            look.c.kind == Kind.ASSEMBLE, and_(look.c.kind == Kind.ROUTE, look.c.subject == newest)
        ),
        or_(
            look.c.state.in_([State.READY, State.RUNNING]),
            and_(look.c.state.in_([State.HELD, State.FAILED]), ~again),
        ),
    )


def expired(at: datetime, times: WorkTimes) -> ColumnElement[bool]:
    """Tell whether somebody began a row, and has it no more."""
    return and_(table.c.state == State.RUNNING, run_out(at, times))


def run_out(at: datetime, times: WorkTimes) -> ColumnElement[bool]:
    """Tell whether a lease is over, or longer than any is: then the clock was ahead when it was taken."""
    return or_(table.c.lease_until < at, table.c.lease_until > at + times.lease + AHEAD)


def orphaned_from(queues: Collection[str], times: WorkTimes) -> ColumnElement[bool]:
    """Tell whether a row is of another queue than these, and nobody is at it."""
    idle = or_(table.c.state == State.READY, expired(now(), times))
    return and_(idle, table.c.queue.not_in([*queues]))
