"""Retention: bytes of Studies that have ended long ago leave the spool; nothing that counts ever does.

A Study has *ended* when nothing of it is under way, nothing of it is held or failed, no Instance of it
contradicts another, and every result that is current was stored where it was to go (or is not to be sent).
Its Instances are let go ``retention.sources`` after that, what was made of them ``retention.results`` after.
Want of space removes nothing sooner: below the watermark the faces refuse, and that is all.

**Why no file is removed that something counts on.** A file is named by its digest, and several rows may
name one file: the same bytes come again, a PACS sends our own results back, two Jobs find the same. Four
rules together are enough; *holding* is taking the spool's lock, shared by all who record and held alone by
who removes (:func:`pacs_ai.ledger.dialects.share_spool`; on SQLite writers exclude each other anyway).

1. The ledger lets go before the disk does. One transaction, which locks the Study and looks once more
   whether it has ended, marks the rows and lists their files in ``removals``. A process that dies here has
   removed nothing, and one that dies later finds the list again.
2. A file loses its name only in a transaction that holds the spool's lock alone, when it is on the list and
   no row counts on it. It is moved aside, not unlinked: a server that starts again takes the lock from a
   transaction that goes on, and then an Instance that came meanwhile may have the name. What lies aside is
   looked at in a transaction of its own, and what a row counts on by then gets its name again. Who dies in
   between finds it there.
3. Who records a file shares the lock in the transaction that records it. An Instance that came looks there
   whether its name is still its own file's, and takes it again if not (:mod:`pacs_ai.grouping`). Results
   and SOP Instances that were made have theirs already, so a step looks whether it is still there, and
   tries again if not. Then it stays: who removes waits for that transaction and sees its row. Nobody else
   removes a name, least of all one who gave it and could not record it.
4. Steps read files of a Study only while a row of its work is running; then the Study has not ended, and
   rule 1 lets nothing go. A row is asked for under the Study's lock.

The answer *duplicate* needs no lock. It is given when a row that was not let go is seen, and its file after
that. By rules 1 and 2 such a row has its file at the moment that the row is read, so the bytes were
held when the answer was decided; to remove them later, because the Study has ended, is what retention is
for. If they were let go in between, the file is gone, or is not seen, and the way of rule 3 is taken.

A *stray* is a file with a name that no row counts on: its ledger could not commit, and its sender, who was
told so, never sent it again; or a process died in between; or the ledger is not the one that acknowledged it
(a backup that was put back, another database). Nobody here can tell which, so strays are told, and removed
only when a person says so. Every round looks through one of the spool's 256 folders.

Names are removed from the list only when the folder was synced and the file is not there: a power cut cannot
bring it back unseen.

How long ago something ended is a matter of the clock, and a clock can leap: see :class:`Steadiness`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

from pacs_ai.failpoint import failpoint
from pacs_ai.ledger import Ledger, retention
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.retention import Held, Removal
from pacs_ai.settings import Settings
from pacs_ai.spool import FOLDERS, Spool, parts_of

BATCH = 100
"""Files removed at once: writers wait for so many and no more."""

LEAP = timedelta(minutes=5)
"""By so much the clock may differ from what has passed by the monotonic one."""
STEADY = timedelta(hours=1)
"""So long it has to go steadily after a leap until it is believed."""

log = logging.getLogger(__name__)

_AGAIN = timedelta(minutes=10)
"""How long nothing is looked for when there was nothing to do."""


class Steadiness:
    """Whether the clock can be believed when it says that something is old: what goes for that is gone.

    A time service that is late, or a person who mistypes a year, is mostly set right within the hour. What
    the ledger has dated says nothing here: it may be of that clock.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._since = 0.0

    def believes(self, at: datetime) -> bool:
        """Tell whether a clock that says ``at`` has gone steadily for an hour, as far as was seen here."""
        passed = monotonic()
        ahead = at.timestamp() - passed
        if self._ahead is None or abs(ahead - self._ahead) > LEAP.total_seconds():
            if self._ahead is not None:
                log.warning("the clock leapt: retention waits for an hour")
            self._since = passed
        self._ahead = ahead
        return passed - self._since > STEADY.total_seconds()


class Retention:
    """Lets go and removes in small batches; the leader alone does.

    Parameters
    ----------
    settings : Settings
    spool : Spool
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._kept = settings.retention
        self._spool = spool
        self._steadiness = Steadiness()
        self._next = float("-inf")
        self._folder = 0

    def look(self, ledger: Ledger) -> bool:
        """Do one batch when it is time for one; tell whether anything was done.

        Raises
        ------
        OSError
            When a file cannot be removed; it stays on the list.
        """
        if monotonic() < self._next:
            return False
        self._next = monotonic() + _AGAIN.total_seconds()
        busy = self._remove(ledger) or self._let_go(ledger)
        if busy:
            self._next = float("-inf")
        else:
            self._tell_strays(ledger)
        return busy

    def _let_go(self, ledger: Ledger) -> bool:
        with ledger.database.read():
            steady = self._steadiness.believes(now())
        for age, due, let_go in (
            (self._kept.sources, retention.sources_due, retention.let_sources_go),
            (self._kept.results, retention.results_due, retention.let_results_go),
        ):
            if age is None or not (steady or age < STEADY):
                continue
            with ledger.database.read() as connection:
                study = due(connection, age)
            if study is not None:
                with ledger.database.write() as connection:
                    let_go(connection, study, age)
                failpoint("retention.let_go")
                return True
        return False

    def _tell_strays(self, ledger: Ledger) -> None:
        """Look through one folder."""
        found = strays(self._spool, ledger.database, self._folder)
        self._folder = (self._folder + 1) % FOLDERS
        if found:
            log.warning(
                "the spool holds files that no row of the ledger knows: pacs-ai strays says what to do",
                extra={"files": len(found)},
            )

    def _remove(self, ledger: Ledger) -> bool:
        aside = self._settle(ledger)
        with ledger.database.read() as connection:
            if not retention.has_removals(connection):
                return aside
        with ledger.database.write() as connection:
            removals = retention.removable(connection, BATCH)
            paths = {one: self._path(one) for one in removals}
            for path in paths.values():
                self._spool.put_aside(path)
            failpoint("retention.aside")
        failpoint("retention.removed")
        self._settle(ledger)
        self._spool.sync_folders_of(paths.values())
        with ledger.database.write() as connection:
            retention.forget(connection, [one for one in removals if not paths[one].exists()])
        return True

    def _settle(self, ledger: Ledger) -> bool:
        """Unlink what lies aside, and give back their names to those that a row counts on."""
        aside = self._spool.aside()
        if not aside:
            return False
        named = {Removal(*parts_of(file)): file for file in aside}
        with ledger.database.write() as connection:
            unknown = set(retention.uncounted(connection, [*named]))
            for one, file in named.items():
                if one not in unknown:
                    self._spool.give_back(file, self._path(one))
        # Nobody waits for this: a large file takes its time, and nobody counts on what lies aside.
        for file in aside:
            file.unlink(missing_ok=True)  # another leader may have done it
        return True

    def _path(self, one: Removal) -> Path:
        if one.transfer_syntax_uid:
            return self._spool.instance_path(one.digest, one.transfer_syntax_uid)
        return self._spool.results_path(one.digest)


# ---------------------------------------------------------------------- what no row counts on


def strays(spool: Spool, database: Database, folder: int) -> list[Removal]:
    """Return strays of an hour and older in one of the spool's :data:`~pacs_ai.spool.FOLDERS` folders."""
    files = [Removal(*parts_of(one)) for one in spool.settled(folder)]
    if not files:
        return []
    with database.read() as connection:
        return retention.strays(connection, files)


def remove_strays(database: Database, found: Sequence[Removal]) -> None:
    """Put strays on the list of what is removed, because a person said so; rule 2 judges them once more."""
    with database.write() as connection:
        retention.ask_removal(connection, found)


# ---------------------------------------------------------------------- what there is


@dataclass(frozen=True, slots=True)
class Outlook:
    """What retention can free of one kind of bytes.

    Attributes
    ----------
    due : int
        Bytes that it removes now.
    later : int
        Bytes of Studies that have ended and whose time has not come.
    next : datetime or None
        When the next of these are let go; None when there are none, or they are kept for ever.
    """

    due: int
    later: int
    next: datetime | None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the spool holds by the ledger, in bytes, and what retention can free of it."""

    kept: int
    sources: Outlook
    results: Outlook


def holdings(settings: Settings, database: Database) -> Holdings:
    """Return what the spool holds and what retention can free of it, and when."""
    kept = settings.retention
    with database.read() as connection:
        return Holdings(
            retention.kept_bytes(connection),
            _outlook(retention.ended_sources(connection), kept.sources),
            _outlook(retention.ended_results(connection), kept.results),
        )


def _outlook(held: list[Held], age: timedelta | None) -> Outlook:
    if age is None:
        return Outlook(0, sum(one.size for one in held), None)
    at = now()
    waiting = [one for one in held if one.since + age > at]
    later = sum(one.size for one in waiting)
    due = sum(one.size for one in held) - later
    return Outlook(due, later, min((one.since + age for one in waiting), default=None))
