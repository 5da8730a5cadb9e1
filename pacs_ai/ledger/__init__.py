"""The ledger: the database that is the truth about every Study, Job, result and delivery.

:class:`Ledger` is the door. A step runs inside ``with ledger.claim(queue) as work``: the claim counts the
attempt and holds the lease, a timer renews it, and leaving the block without an outcome decides between
back-off, strike and failure by the type of the error.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from sqlalchemy import Connection, or_, select

from pacs_ai import __version__
from pacs_ai.errors import LeaseLostError, PacsAiError, TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.ledger import audit, deliveries, events, studies, tables, work
from pacs_ai.ledger.clock import AHEAD, now
from pacs_ai.ledger.dialects import lock_studies, upsert
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.rows import Kind, State
from pacs_ai.ledger.work import Claimed
from pacs_ai.settings import WorkTimes

log = logging.getLogger(__name__)

SWITCHES = ("delivery", "routing")
_PAUSED_KINDS = {"delivery": Kind.DELIVER, "routing": Kind.ROUTE}


@dataclass(slots=True)
class Commit:
    """The one transaction at the end of a step.

    Attributes
    ----------
    connection : Connection
    said : str or None
        What happened, for the event and the timeline; no patient identifiers.
    """

    connection: Connection
    said: str | None


@dataclass(slots=True)
class Attempt:
    """One attempt at a claimed row of work.

    Attributes
    ----------
    claimed : Claimed
    ended : bool
        Whether an outcome was committed.
    """

    claimed: Claimed
    _ledger: Ledger
    _times: WorkTimes
    _limit: int
    ended: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def commit(self, state: State = State.DONE, reason: str | None = None) -> Iterator[Commit]:
        """Open the one transaction in which facts, event, next work and the outcome become true.

        Raises
        ------
        LeaseLostError
            When another process took the work over; nothing of the block is kept then.
        """
        with self._ledger.database.write() as connection:
            lock_studies(connection, [self.claimed.study])
            commit = Commit(connection, reason)
            yield commit
            work.finish(connection, self.claimed, state, reason=commit.said)
        self.ended = True

    def seats(self, *, wanted: int, busy: int) -> int:
        """Hold further seats of the queue's limit, or give some back; return how many are held.

        While the ledger cannot be asked, what is under way goes on and nothing is added to it.

        Parameters
        ----------
        wanted : int
            How many things this attempt would do at once.
        busy : int
            How many it is doing: their seats are not taken from it.

        Raises
        ------
        LeaseLostError
            When another process took the work over: nothing more may be begun.
        """
        try:
            with self._ledger.database.write() as connection:
                return work.hold_seats(
                    connection, self.claimed, wanted=wanted, busy=busy, limit=self._limit
                )
        except TransientError:
            return max(1, busy)

    def _renew(self) -> None:
        while not self._over.wait(self._times.renew.total_seconds()):
            with suppress(TransientError):
                with self._ledger.database.write() as connection:
                    mine = work.renew(connection, self.claimed, times=self._times)
                if not mine:
                    return


class Ledger:
    """The ledger of one gateway.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of the database.
    times : WorkTimes
        Lease, strikes and back-off.
    """

    def __init__(self, url: str, times: WorkTimes) -> None:
        self.database = Database(url)
        self.times = times

    def installation(self) -> str:
        """Return this installation's id, made when the ledger was."""
        with self.database.read() as connection:
            return str(connection.scalar(select(tables.installation.c.id)))

    @contextmanager
    def claim(self, queue: str, *, limit: int = 1_000) -> Iterator[Attempt | None]:
        """Claim the best ready row of a queue for the length of the block, or None.

        Leaving the block by a :class:`TransientError` puts the work off; by another
        :class:`PacsAiError` fails it; by anything else, or without an outcome, counts a strike.
        """
        with self.database.write() as connection:
            claimed = work.claim(
                connection,
                queue,
                times=self.times,
                limit=limit,
                paused=_paused_kinds(connection),
            )
        if claimed is None:
            yield None
            return
        failpoint(f"{claimed.kind}.claimed")
        attempt = Attempt(claimed, self, self.times, limit)
        timer = threading.Thread(target=attempt._renew, name="lease", daemon=True)
        timer.start()
        try:
            yield attempt
            if not attempt.ended:
                raise RuntimeError(f"the {claimed.kind} step ended without an outcome")
        except LeaseLostError:
            log.warning("lease lost", extra={"work_id": claimed.id})
        except Exception as error:  # the rim of every step: nothing may leave work running
            self._end_badly(claimed, error)
        finally:
            attempt._over.set()
            timer.join()

    def _end_badly(self, claimed: Claimed, error: Exception) -> None:
        log.warning(
            "step ended badly",
            extra={"work_id": claimed.id, "kind": claimed.kind, "error": type(error).__name__},
            exc_info=not isinstance(error, PacsAiError),
        )
        with suppress(LeaseLostError), self.database.write() as connection:
            lock_studies(connection, [claimed.study])
            if isinstance(error, TransientError):
                work.again_later(
                    connection,
                    claimed,
                    times=self.times,
                    reason=str(error),
                    after=error.retry_after,
                )
            elif isinstance(error, PacsAiError):
                work.finish(connection, claimed, State.FAILED, reason=str(error))
            else:
                reason = f"{type(error).__name__} in the {claimed.kind} step (see the log)"
                work.strike(connection, claimed, times=self.times, reason=reason)

    def due(self) -> list[tuple[str, str]]:
        """Return (queue, work id) of everything that may start now."""
        with self.database.read() as connection:
            return work.due(connection, times=self.times, paused=_paused_kinds(connection))

    def is_moving(self, within: timedelta) -> bool:
        """Tell whether work was claimed in that time, or is carried out now."""
        with self.database.read() as connection:
            return work.is_moving(connection, times=self.times, since=now() - within)

    def hold_orphans(self, queues: Collection[str]) -> None:
        """Hold the work of queues that nobody listens to, and say why."""
        with self.database.read() as connection:
            orphans = work.orphans(connection, queues, times=self.times)
        if orphans:
            with self.database.write() as connection:
                work.hold_orphans(connection, queues, times=self.times)

    def backlog(self) -> int:
        """Return how many pieces of work could start now and have not."""
        with self.database.read() as connection:
            return work.backlog(connection)

    def waits(self) -> bool:
        """Tell whether some work is under way, or will start without anybody's word."""
        with self.database.read() as connection:
            return work.waits(connection)

    def set_switch(self, name: str, *, actor: str, paused: bool) -> None:
        """Stop or start delivery or routing at once; written as an event.

        What waited meanwhile may be tried for as long after as it could not be.
        """
        with self.database.write() as connection:
            switch = tables.switches.c
            since = connection.scalar(select(switch.paused_at).where(switch.name == name))
            if since is not None and not paused:
                work.put_deadlines_off(connection, _PAUSED_KINDS[name], since=since)
            value = {"paused_at": now() if paused else None, "actor": actor}
            connection.execute(
                upsert(connection.dialect.name, tables.switches)
                .values(name=name, **value)
                .on_conflict_do_update(index_elements=["name"], set_=value)
            )
            kind = f"{name} {'paused' if paused else 'resumed'}"
            events.record(connection, kind, actor=actor)

    def note_settings(self, digest: str, *, actor: str) -> None:
        """Record that a role runs with other settings, or another version, than the last one noted."""
        table = tables.events
        detail = {"settings": digest, "version": __version__}
        last = (
            select(table.c.detail)
            .where(table.c.kind == "configured")
            .order_by(table.c.id.desc())
            .limit(1)
        )
        with self.database.write() as connection:
            if connection.scalar(last) != detail:
                events.record(connection, "configured", actor=actor, detail=detail)

    def seal_events(self) -> int:
        """Seal a batch of the events that have no seal yet; return how many. The leader alone does."""
        with self.database.read() as connection:
            if not audit.has_unsealed(connection):
                return 0
        with self.database.write() as connection:
            return audit.seal(connection)

    def verify_events(self, *, noted: str | None = None) -> audit.Verdict:
        """Look at every sealed event; ``noted`` is a seal that must still be in the chain."""
        with self.database.read() as connection:
            return audit.verify(connection, noted=noted)

    def release(
        self,
        study: str,
        *,
        actor: str,
        take: str | None = None,
        patience: Mapping[Kind, timedelta] = MappingProxyType({}),
    ) -> int:
        """Let a Study's held and failed work start again; return how many rows.

        Parameters
        ----------
        take : str, optional
            ``"first"`` or ``"newest"``: which of Instances that contradict each other under one UID
            counts from now on. Another Study that loses one by it is assembled again,
            unless retention has removed it.
        patience : mapping of Kind to timedelta
            How long work that has a deadline may be tried from now on; left out, until the one it had.
        """
        with self.database.write() as connection:
            # Locks are taken in one order: which Studies it is about must be known before the first.
            contradicting = studies.contradicting_instances(connection, study) if take else []
            about = {study, *(one.StudyInstanceUID for one in contradicting)}
            lock_studies(connection, about)
            if take is not None:
                settled = studies.settle_conflicts(connection, study, take=take)
                for other in sorted(settled.others):
                    work.add_assembly(connection, other, not_before=now())
                if settled.counting or settled.rejected:
                    detail = {
                        "take": take,
                        "counting": settled.counting,
                        "rejected": settled.rejected,
                    }
                    kind = "contradiction settled"
                    events.record(connection, kind, actor=actor, study=study, detail=detail)
            deliveries.try_refused_again(connection, study)
            return work.release_held(connection, study, actor=actor, patience=patience)

    def lead(self, name: str, *, owner: str, lease: timedelta) -> bool:
        """Become or stay the one leader of a role; False while another process is."""
        table = tables.leaders
        with self.database.write() as connection:
            at = now()
            value = {"owner": owner, "until": at + lease}
            led = connection.scalar(
                upsert(connection.dialect.name, table)
                .values(name=name, **value)
                .on_conflict_do_update(
                    index_elements=["name"],
                    set_=value,
                    where=or_(
                        *(table.c.owner == owner, table.c.until <= at),
                        # It was taken before the clock was set back, and would last as long as it was ahead.
                        table.c.until > at + lease + AHEAD,
                    ),
                )
                .returning(table.c.owner)
            )
        return led is not None

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def owner_name() -> str:
    """Return a name for a process that wants to lead."""
    return str(uuid.uuid4())


def _paused_kinds(connection: Connection) -> list[Kind]:
    table = tables.switches
    names = connection.scalars(select(table.c.name).where(table.c.paused_at.is_not(None)))
    return [_PAUSED_KINDS[name] for name in names]
