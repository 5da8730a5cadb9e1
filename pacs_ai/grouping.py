"""Group commit: whoever comes first writes the rows of all who wait, in one transaction.

The sync of the ledger serves any number of Instances at once. The thread that finds nobody at work takes all
who wait with it, and hands on to the first of those who came meanwhile. One association alone waits for
nobody and for no other thread.

Each gives its file its name before: writers of the ledger exclude each other, and a sync of a folder in their
transaction is what all others wait for. Inside of it each looks once more whether the name is still its
own. A name that no row will know, because the ledger cannot be written, is left there: to take it
back could take it from another who brought the same bytes.

On PostgreSQL another process may hold a Study: retention, for as long as it removes files. Instances of such
a Study leave their group and wait in a transaction of their own; the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from pacs_ai.errors import TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.ledger import Ledger, arrivals, retention
from pacs_ai.ledger.arrivals import Arrival
from pacs_ai.ledger.engine import Database, Steady
from pacs_ai.spool import SpoolFullError, Writer

LARGEST = 64
"""Most Instances in one transaction; it holds the locks of all their Studies."""

_FRESH = 0.5
"""Seconds in which a Study that was asked to wait for quiet is not asked again."""
_LONG = timedelta(seconds=2)
"""Least quiet for which that is done."""
_REMEMBERED = 1_000


class _Waiting:
    """An Instance that waits for its group."""

    __slots__ = ("apart", "arrival", "error", "new", "over", "path", "study", "turn", "writer")

    def __init__(self, arrival: Arrival, writer: Writer, path: str) -> None:
        self.arrival = arrival
        self.study = arrival.head.StudyInstanceUID
        self.writer = writer
        self.path = path
        self.turn = threading.Lock()
        self.turn.acquire()  # released when it is this one's turn to lead, or all is over
        self.over = False
        self.apart: Sequence[_Waiting] = ()  # who left the group, with this one to lead them
        self.new = False
        self.error: BaseException | None = None


class _Way(NamedTuple):
    """Where a group is written, and how its Studies are held."""

    writing: Database | Steady
    hold: Callable[..., Collection[str]]


class GroupCommit:
    """Gives synced Instances their names, and their rows together with those that come at once.

    Parameters
    ----------
    ledger : Ledger
    """

    def __init__(self, ledger: Ledger) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._led = False
        self._begun: float | None = None
        self._writing = ledger.database.steady()
        self._together = _Way(self._writing, retention.hold_free_files)
        self._patient = _Way(ledger.database, retention.hold_files)
        self._asked: dict[str, tuple[float, float]] = {}

    def close(self) -> None:
        """Let go of the ledger."""
        self._writing.close()

    def busy_seconds(self) -> float:
        """Return for how long the group that is being made durable has been at it; 0 when there is none."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    def record(self, arrival: Arrival, writer: Writer, path: str) -> bool:
        """Return, when name and row are durable, whether the Instance is new to the ledger.

        Parameters
        ----------
        arrival : Arrival
        writer : Writer
            Its bytes, synced.
        path : str
            Where they shall rest.

        Raises
        ------
        SpoolFullError
            When the disk refused the name or its sync.
        LedgerBusyError
            When the ledger could not take it now.
        """
        writer.name(path)
        failpoint("receive.linked")
        one = _Waiting(arrival, writer, path)
        with self._lock:
            self._waiting.append(one)
            leads = not self._led
            self._led = True
        if not leads:
            one.turn.acquire()
        if not one.over:
            self._lead()
        apart, one.apart = one.apart, ()
        if apart:
            self._lead_apart(apart)
        if one.error is not None:
            raise one.error
        return one.new

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        self._begun = time.monotonic()
        apart: Sequence[_Waiting] = ()
        try:
            apart = self._commit(group, self._together)
        finally:
            self._begun = None
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            if apart:
                apart[0].apart = apart
            _release([one for one in group if one not in apart[1:]])
            if following is not None:
                following.turn.release()

    def _lead_apart(self, group: Sequence[_Waiting]) -> None:
        try:
            self._commit(group, self._patient)
        finally:
            _release(group[1:])

    def _commit(self, group: Sequence[_Waiting], way: _Way) -> Sequence[_Waiting]:
        """Record a group; return who has to leave it. Nothing is raised that one of them does not hear."""
        try:
            return self._record(group, way)
        except TransientError as error:
            _tell(group, error)
        except Exception as error:
            if len(group) > 1:  # what is wrong with one must not be the others' fault
                return [left for one in group for left in self._commit([one], way)]
            _tell(group, error)
        except BaseException as error:
            _tell(group, error)
            raise
        return ()

    def _record(self, group: Sequence[_Waiting], way: _Way) -> Sequence[_Waiting]:
        studies = {one.study for one in group}
        with way.writing.write() as connection:
            free = way.hold(connection, studies)
            held = self._hold_names([one for one in group if one.study in free])
            noted = self._noted(studies)
            recorded = arrivals.record(connection, [one.arrival for one in held], noted=noted)
        failpoint("receive.recorded")
        self._note(recorded.asked)
        for one, is_new in zip(held, recorded.new, strict=True):
            one.new = is_new
        return [one for one in group if one.study not in free]

    def _noted(self, studies: Collection[str]) -> set[str]:
        # The caller holds the Studies. Who was asked to wait for much longer than this is not assembled
        # before the transaction ends, and is then seen with what it adds. When it is due, the wall clock
        # says: it may be set, and goes on where a machine sleeps.
        at, wall = time.monotonic(), time.time()
        return {
            one
            for one in studies
            if (asked := self._asked.get(one))
            and at - asked[0] < _FRESH
            and 0 <= wall - asked[1] < _FRESH
        }

    def _note(self, asked: Mapping[str, timedelta]) -> None:
        at = time.monotonic(), time.time()
        if len(self._asked) > _REMEMBERED:
            self._asked.clear()
        self._asked |= {one: at for one, quiet in asked.items() if quiet >= _LONG}

    def _hold_names(self, group: Sequence[_Waiting]) -> list[_Waiting]:
        """See to it that each name is a file's of this group until the transaction ends; return whose is.

        A name that another has given may stem from a sync that failed.
        """
        held: set[str] = set()
        for one in group:
            if one.path in held:
                continue  # the same bytes came twice, and one file is enough
            try:
                one.writer.hold_name(one.path)
            except SpoolFullError as error:
                one.error = error
            else:
                held.add(one.path)
        return [one for one in group if one.error is None]


def _tell(group: Sequence[_Waiting], error: BaseException) -> None:
    for one in group:
        one.error = one.error or error


def _release(group: Sequence[_Waiting]) -> None:
    for one in group:
        one.over = True
        one.turn.release()
