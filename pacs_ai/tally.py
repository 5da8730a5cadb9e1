"""Counts what went wrong on the way in and tells the ledger, in a thread of its own.

A sender that is refused waits for its answer, and the ledger may be what is wrong: nothing is written before
the answer is out, and many refusals are one write. What a process has not told when it is killed is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pacs_ai.errors import TransientError
from pacs_ai.ledger import tallies
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.tallies import Count
from pacs_ai.spool import SpoolFullError

log = logging.getLogger(__name__)

_PAUSE = 5.0
"""Seconds between two writes."""


class Tally:
    """The counters of one process.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._telling = threading.Lock()  # who closes waits for what is being told
        self._counts: dict[str, tuple[int, float]] = {}
        self._timer: threading.Timer | None = None
        self._told: float | None = None
        self._closed = False

    def refused(self, status: int) -> None:
        """Count an Instance that was refused with a status (PS3.4 B.2.3)."""
        self._count(f"0x{status:04X}")

    def spool_failed(self) -> None:
        """Note that the spool did not take bytes: health is red until an Instance is stored again."""
        self._count(tallies.SPOOL)

    @contextmanager
    def watching_spool(self) -> Iterator[None]:
        """Note it when the block finds that the spool does not take bytes."""
        try:
            yield
        except SpoolFullError:
            self.spool_failed()
            raise

    def tell(self) -> None:
        """Write what was counted; when the ledger does not take it now, later."""
        with self._telling:
            with self._lock:
                counts, self._counts = self._counts, {}
                self._timer, self._told = None, time.monotonic()
            if not counts:
                return
            try:
                self._write(counts)
            except TransientError:
                self._take_back(counts)

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
        self.tell()

    def _take_back(self, counts: dict[str, tuple[int, float]]) -> None:
        with self._lock:
            for name, (number, at) in counts.items():
                since, last = self._counts.get(name, (0, at))
                self._counts[name] = number + since, max(at, last)
            self._start()

    def _write(self, counts: dict[str, tuple[int, float]]) -> None:
        with self._database.write() as connection:
            ended = time.monotonic()
            ago = {
                name: Count(number, timedelta(seconds=ended - at))
                for name, (number, at) in counts.items()
            }
            tallies.add(connection, ago)

    def _count(self, name: str) -> None:
        with self._lock:
            number, _ = self._counts.get(name, (0, 0.0))
            self._counts[name] = number + 1, time.monotonic()
            self._start()

    def _start(self) -> None:
        if self._timer is not None or self._closed:
            return
        left = 0.0 if self._told is None else self._told + _PAUSE - time.monotonic()
        timer = threading.Timer(max(0.0, left), self._tell_safely)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread is left; whoever is refused gets the answer all the same
            log.warning("refusals are written with the next one: no thread can be started")
        else:
            self._timer = timer

    def _tell_safely(self) -> None:
        try:
            self.tell()
        except Exception as error:  # the rim of the thread; the counts are lost, and nothing else
            log.warning("refusals were not counted", extra={"error": type(error).__name__})
