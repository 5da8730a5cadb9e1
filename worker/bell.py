"""The bell: a thread that rings for work that is due, because messages may be lost and time passes.

One worker leads. Once a second it looks for quiet periods that are over, back-offs that have passed and
leases that ran out, and rings. Ringing twice is harmless; the ledger decides who works. At the same time it
seals the events that were written meanwhile, and lets retention remove a batch.

The thread lives in the process that forks Celery's children. A child forked while this process has the
SQLite file open inherits locks that are not its own, and every write of it says "busy" for ever; one forked
while a connection to PostgreSQL is open shares its socket. The bell therefore closes the database after
each look, and no fork happens during one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

from pacs_ai.ledger import Ledger, owner_name
from pacs_ai.retention import Retention
from pacs_ai.settings import Settings
from pacs_ai.spool import Spool

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 10.0
_STALLED = timedelta(seconds=120)
"""How long work may be due and rung for with nobody taking any."""
_LEAD = timedelta(seconds=10)


class Bell:
    """Rings for due work while this worker leads.

    Parameters
    ----------
    settings : Settings
    ring : callable
        Takes a queue's name and a work id.
    queues : collection of str
        Queues that somebody listens to. Work of any other is held, with the reason: its endpoint or
        destination is gone from the settings.
    give_up : callable
        Ends this worker. Celery's consumer can go deaf when broker and children die within seconds: messages
        pile up and nobody takes them. Nothing runs then, and whoever starts this worker again mends it.
    """

    def __init__(
        self,
        settings: Settings,
        ring: Callable[[str, str], None],
        *,
        queues: Collection[str],
        give_up: Callable[[], object] = lambda: os._exit(os.EX_TEMPFAIL),
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._ring = ring
        self._owner = owner_name()
        self._retention = Retention(settings, Spool(settings.spool_path))
        self._over = threading.Event()
        self._give_up = give_up
        self._due_since: float | None = None
        self._rung: dict[str, float] = {}
        self._looking = threading.Lock()
        os.register_at_fork(
            before=self._looking.acquire,
            after_in_parent=self._looking.release,
            after_in_child=self._looking.release,
        )

    def run(self) -> None:
        """Ring until :meth:`stop`."""
        ledger = Ledger(self._settings.ledger_url, self._settings.work)
        while not self._over.wait(self._settings.work.bell.total_seconds()):
            try:
                self.look(ledger)
            except Exception as error:  # a rim: a bell that is silent for good stops everything
                log.warning(
                    "the bell could not ring; it looks again",
                    extra={"error": type(error).__name__},
                )

    def look(self, ledger: Ledger) -> None:
        """Ring, when this worker leads, for everything due that was not rung for lately."""
        with self._looking:
            leads = ledger.lead("bell", owner=self._owner, lease=_LEAD)
            if leads:
                ledger.hold_orphans(self._queues)
            due = ledger.due() if leads else []
            stalled = self._is_stalled(ledger, is_due=bool(due))
            if leads:
                self._look_after(ledger)
            ledger.close()
        if stalled:
            log.error("work is due and nobody takes it: this worker ends, to be started again")
            self._give_up()
        at = time.monotonic()
        waiting = {work_id for _, work_id in due}
        self._rung = {one: when for one, when in self._rung.items() if one in waiting}
        for queue, work_id in due:
            if at - self._rung.get(work_id, float("-inf")) >= _AGAIN_SECONDS:
                self._rung[work_id] = at
                self._ring(queue, work_id)

    def _is_stalled(self, ledger: Ledger, *, is_due: bool) -> bool:
        if not is_due:
            self._due_since = None
            return False
        self._due_since = self._due_since or time.monotonic()
        waited = time.monotonic() - self._due_since
        return waited > _STALLED.total_seconds() and not ledger.is_moving(_STALLED)

    def _look_after(self, ledger: Ledger) -> None:
        for step, failed in (
            (ledger.seal_events, "events could not be sealed: pacs-ai audit verify says more"),
            (partial(self._retention.look, ledger), "retention could not go on; it tries again"),
        ):
            try:
                step()
            except (
                Exception
            ) as error:  # a rim: what cannot be read or removed must not silence the bell
                log.warning(failed, extra={"error": type(error).__name__})

    def stop(self) -> None:
        """End :meth:`run`."""
        self._over.set()
