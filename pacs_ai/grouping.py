"""Group commit: whoever comes first writes the rows of all who wait, in one transaction.

The sync of the ledger serves any number of Instances at once. The thread that finds nobody at work takes all
who wait with it, and hands on to the first of those who came meanwhile. One association alone waits for
nobody and for no other thread.

Each gives its file its name before: writers of the ledger exclude each other, and a sync of a folder in their
transaction is what all others wait for. Inside of it each looks once more whether the name is still its
own. A name that no row will know, because the ledger cannot be written, is left there: to take it
back could take it from another who brought the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from pacs_ai.errors import TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.ledger import Ledger, arrivals, retention
from pacs_ai.ledger.arrivals import Arrival
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

    __slots__ = ("arrival", "error", "new", "over", "path", "turn", "writer")

    def __init__(self, arrival: Arrival, writer: Writer, path: str) -> None:
        self.arrival = arrival
        self.writer = writer
        self.path = path
        self.turn = threading.Lock()
        self.turn.acquire()  # released when it is this one's turn to lead, or all is over
        self.over = False
        self.new = False
        self.error: BaseException | None = None


class GroupCommit:
    """Gives synced Instances their names, and their rows together with those that come at once.

    Parameters
    ----------
    ledger : Ledger
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._led = False
        self._begun: float | None = None
        self._writing = ledger.database.steady()
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
        if one.error is not None:
            raise one.error
        return one.new

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        self._begun = time.monotonic()
        try:
            self._commit(group)
        except BaseException as error:
            for one in group:
                one.error = one.error or error
            raise
        finally:
            self._begun = None
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            for one in group:
                one.over = True
                one.turn.release()
            if following is not None:
                following.turn.release()

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            self._record(group)
        except TransientError as error:
            for one in group:
                one.error = error
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
                return
            for one in group:  # what is wrong with one must not be the others' fault
                self._commit([one])

    def _record(self, group: Sequence[_Waiting]) -> None:
        heads = [one.arrival.head for one in group]
        studies = {one.StudyInstanceUID for one in heads}
        with self._writing.write() as connection:
            retention.hold_files(connection, studies, {one.SOPInstanceUID for one in heads})
            held = self._hold_names(group)
            at = time.monotonic(), time.time()
            noted = self._noted(studies, at)
            recorded = arrivals.record(connection, [one.arrival for one in held], noted=noted)
        failpoint("receive.recorded")
        self._note(recorded.asked, at)
        for one, is_new in zip(held, recorded.new, strict=True):
            one.new = is_new

    def _noted(self, studies: Collection[str], at: tuple[float, float]) -> set[str]:
        # The caller holds the Studies. Who was asked to wait for much longer than this is not assembled
        # before the transaction ends, and is then seen with what it adds. When it is due, the wall clock
        # says: it may be set, and goes on where a machine sleeps.
        return {
            one
            for one in studies
            if (asked := self._asked.get(one))
            and at[0] - asked[0] < _FRESH
            and 0 <= at[1] - asked[1] < _FRESH
        }

    def _note(self, asked: Mapping[str, timedelta], at: tuple[float, float]) -> None:
        # From before they were asked: a commit may take as long as they wait.
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
