"""The chain of sealed events: each seal digests an event and the seal before it.

An event is written without a seal, in the transaction of what it tells; a chain inside every transaction
would make all writers wait for each other. The bell's leader seals afterwards, within seconds, in order of
id of what is committed by then. The place in the chain is therefore a column of its own: on PostgreSQL a
long transaction may commit an event after a later one was sealed.

Whoever can write the database can also compute seals. What the chain proves, and how to keep a seal
elsewhere so that it proves more, stands in ``docs/audit.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, update

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import upsert
from pacs_ai.uids import digest

_BATCH = 1_000
_CHAIN = 1


@dataclass(frozen=True, slots=True)
class Break:
    """The first place at which the chain does not hold.

    Attributes
    ----------
    position : int
        Place in the chain, from 1.
    event : int or None
        Id of the event that stands there, when one does.
    why : str
    """

    position: int
    event: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the whole chain found.

    Attributes
    ----------
    sealed : int
        How many sealed events hold, from the first on.
    seal : str
        The seal of the last of them: note it elsewhere, and ask for it later.
    broken : Break or None
    unsealed : int
        Events that nobody has sealed yet.
    oldest_unsealed : datetime or None
    """

    sealed: int
    seal: str
    broken: Break | None
    unsealed: int
    oldest_unsealed: datetime | None


def has_unsealed(connection: Connection) -> bool:
    """Tell whether an event waits for its seal."""
    table = tables.events
    waiting = select(table.c.id).where(table.c.position.is_(None)).limit(1)
    return connection.scalar(waiting) is not None


def seal(connection: Connection) -> int:
    """Seal the oldest events that have no seal, a batch at most; return how many."""
    table, chain = tables.events, tables.chain
    first = {"position": 0, "seal": _first(connection), "sealed_at": now()}
    made = upsert(connection.dialect.name, chain).values(id=_CHAIN, **first)
    connection.execute(made.on_conflict_do_nothing())
    end = connection.execute(select(chain).with_for_update()).one()
    # Normally both are the same. A row that someone put in must not stop the sealing of what follows.
    highest = connection.scalar(select(func.max(table.c.position))) or 0
    position, last = max(highest, end.position), end.seal
    rows = connection.execute(
        select(table).where(table.c.position.is_(None)).order_by(table.c.id).limit(_BATCH)
    ).all()
    for row in rows:
        position += 1
        last = _seal(last, position, row)
        connection.execute(
            update(table).where(table.c.id == row.id).values(position=position, seal=last)
        )
    connection.execute(update(chain).values(position=position, seal=last, sealed_at=now()))
    return len(rows)


def verify(connection: Connection, *, noted: str | None = None) -> Verdict:
    """Look at every sealed event, in the order of the chain.

    Parameters
    ----------
    noted : str, optional
        A seal that was noted before; it must still be in the chain.
    """
    table = tables.events
    try:
        return _verified(connection, noted)
    except (ValueError, TypeError):  # SQLite keeps whatever was written over a time or a number
        waiting = and_(table.c.position.is_(None), table.c.seal.is_(None))
        count = connection.scalar(select(func.count()).where(waiting)) or 0
        return Verdict(0, "", _unreadable(connection), count, None)


def _unreadable(connection: Connection) -> Break:
    """Return where the first event is that nobody can read, of those that have a place or wait for one."""
    table = tables.events
    ids = [*connection.scalars(select(table.c.id).order_by(table.c.position, table.c.id))]
    for place, one in enumerate(ids):
        try:
            row = connection.execute(select(table).where(table.c.id == one)).one()
            _seal("", int(row.position or 0), row)
        except (ValueError, TypeError):
            return Break(place + 1, one, "it cannot be read")
    return Break(0, None, "the end of the chain cannot be read")


def _verified(connection: Connection, noted: str | None) -> Verdict:
    table = tables.events
    sealed, last = 0, _first(connection)
    broken: Break | None = None
    found = noted is None
    rows = connection.execution_options(yield_per=_BATCH).execute(
        select(table)
        .where(or_(table.c.position.is_not(None), table.c.seal.is_not(None)))
        .order_by(table.c.position.is_(None), table.c.position)
    )
    for row in rows:
        broken = _look(last, sealed + 1, row)
        if broken is not None:
            break
        sealed, last = sealed + 1, row.seal
        found = found or last == noted
    rows.close()
    if broken is None:
        broken = _end(connection, sealed, last)
    if broken is None and not found:
        broken = Break(sealed + 1, None, "the seal that was noted is not in the chain")
    waiting = connection.execution_options(yield_per=_BATCH).execute(
        select(table).where(table.c.position.is_(None), table.c.seal.is_(None))
    )
    times = [row.at for row in waiting]  # read whole: one that cannot be read is never sealed
    return Verdict(sealed, last, broken, len(times), min(times, default=None))


def _look(last: str, position: int, row: Any) -> Break | None:
    if row.position is None:
        return Break(position, row.id, "it has a seal and no place in the chain")
    if row.position != position:
        return Break(position, None, "the event that was sealed there is missing")
    if row.seal != _seal(last, position, row):
        return Break(position, row.id, "it is not the event that was sealed there")
    return None


def _end(connection: Connection, sealed: int, last: str) -> Break | None:
    end = connection.execute(select(tables.chain)).first()
    known = (0, _first(connection)) if end is None else (end.position, end.seal)
    if end is None and _is_emptied(connection):
        return Break(1, None, "there is no event, and work has been done")
    if known == (sealed, last):
        return None
    if known[0] > sealed:
        return Break(sealed + 1, None, "the newest sealed events are missing")
    return Break(sealed, None, "the end of the chain is not the one that was written down")


def _is_emptied(connection: Connection) -> bool:
    written = select(tables.events.c.id).limit(1)
    ended = select(tables.work.c.id).where(tables.work.c.ended_at.is_not(None)).limit(1)
    return connection.scalar(written) is None and connection.scalar(ended) is not None


def _first(connection: Connection) -> str:
    """Return what the first event is chained to: a chain belongs to one installation."""
    return digest(["events", str(connection.scalar(select(tables.installation.c.id)))])


def _seal(last: str, position: int, row: Any) -> str:
    return digest(
        {
            "previous": last,
            "position": position,
            "id": row.id,
            "at": row.at.isoformat(timespec="microseconds"),
            "kind": row.kind,
            "actor": row.actor,
            "study": row.study_instance_uid,
            "work": row.work_id,
            "reason": row.reason,
            "detail": row.detail,
        }
    )
