"""Seats: how many calls of one endpoint Jobs may have under way together, and who gives them back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from pacs_ai.errors import LeaseLostError
from pacs_ai.ledger import Attempt, Ledger, tables, work
from pacs_ai.ledger.engine import LedgerBusyError
from pacs_ai.ledger.rows import Kind
from pacs_ai.settings import WorkTimes
from tests.unit.ledger.test_work import QUEUE, STUDY, _expire_lease, _ledger, add_study

LIMIT = 4


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    made = _ledger(ledger_url)
    yield made
    made.close()


def add(ledger: Ledger, *subjects: str) -> None:
    with ledger.database.write() as connection:
        for subject in subjects:
            work.add(connection, Kind.INFER, queue=QUEUE, subject=subject, study=STUDY)


def held(ledger: Ledger, subject: str) -> int:
    with ledger.database.read() as connection:
        seats = select(tables.work.c.seats).where(tables.work.c.subject == subject)
        return int(connection.scalar(seats) or 0)


def end(attempt: Attempt) -> None:
    with attempt.commit():
        pass


def test_a_job_alone_may_hold_every_seat_and_no_more(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as one:
        assert one is not None
        assert one.seats(wanted=2, busy=1) == 2
        assert one.seats(wanted=9, busy=2) == LIMIT
        end(one)


def test_a_borrowed_seat_counts_against_the_limit(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as one:
        assert one is not None
        assert one.seats(wanted=LIMIT, busy=1) == LIMIT
        add(ledger, "b")
        with ledger.claim(QUEUE, limit=LIMIT) as none:
            assert none is None
        end(one)


def test_a_seat_that_ready_work_waits_for_is_given_back_when_its_call_is_over(
    ledger: Ledger,
) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as one:
        assert one is not None
        one.seats(wanted=LIMIT, busy=1)
        add(ledger, "b", "c")
        assert one.seats(wanted=LIMIT, busy=LIMIT) == LIMIT  # all four are in use
        assert one.seats(wanted=LIMIT, busy=3) == 3
        with ledger.claim(QUEUE, limit=LIMIT) as two:
            assert two is not None
            # One seat is left to be given back, and c waits for it.
            assert two.seats(wanted=2, busy=1) == 1
            assert one.seats(wanted=3, busy=1) == 2
            with ledger.claim(QUEUE, limit=LIMIT) as three:
                assert three is not None
                assert one.seats(wanted=4, busy=2) == 2
                end(three)
            end(two)
        assert one.seats(wanted=4, busy=2) == 4
        end(one)


def test_work_that_is_put_off_keeps_no_seat_free(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=2) as one:
        assert one is not None
        with ledger.database.write() as connection:
            later = work.now() + timedelta(hours=1)
            work.add(
                connection, Kind.INFER, queue=QUEUE, subject="b", study=STUDY, not_before=later
            )
        assert one.seats(wanted=2, busy=1) == 2
        end(one)


def test_other_queues_have_seats_of_their_own(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue="infer.other", subject="b", study=STUDY)
    with (
        ledger.claim(QUEUE, limit=2) as one,
        ledger.claim("infer.other", limit=2) as other,
    ):
        assert one is not None
        assert other is not None
        assert one.seats(wanted=2, busy=1) == 2
        assert other.seats(wanted=2, busy=1) == 2
        end(one)
        end(other)


def test_the_next_attempt_begins_with_one_seat(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as one:
        assert one is not None
        one.seats(wanted=LIMIT, busy=1)
        _expire_lease(ledger)
        with ledger.claim(QUEUE, limit=LIMIT) as other:
            assert other is not None
            assert held(ledger, "a") == 1
            end(other)


def test_a_job_whose_lease_was_lost_gets_no_seat(ledger: Ledger) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as sleeper:
        assert sleeper is not None
        _expire_lease(ledger)
        with ledger.claim(QUEUE, limit=LIMIT) as other:
            assert other is not None
            with pytest.raises(LeaseLostError):
                sleeper.seats(wanted=2, busy=1)
            end(other)


def test_a_busy_ledger_adds_no_call_and_ends_none(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(ledger, "a")
    with ledger.claim(QUEUE, limit=LIMIT) as one:
        assert one is not None
        with monkeypatch.context() as patch:

            def busy(*_: object, **__: object) -> None:
                raise LedgerBusyError("the ledger's database is busy or gone")

            patch.setattr(work, "hold_seats", busy)
            assert one.seats(wanted=4, busy=3) == 3
            assert one.seats(wanted=1, busy=0) == 1
        end(one)


_BORROWER = """
import sys, time
from datetime import timedelta
from pacs_ai.ledger import Ledger
from pacs_ai.settings import WorkTimes
times = WorkTimes(lease=timedelta(seconds=1), renew=timedelta(milliseconds=200))
with Ledger(sys.argv[1], times).claim("infer.cxrreport", limit=4) as attempt:
    print(attempt.seats(wanted=4, busy=1), flush=True)
    time.sleep(60)
"""


def test_a_borrower_that_is_killed_gives_its_seats_back_with_its_lease(ledger_url: str) -> None:
    times = WorkTimes(lease=timedelta(seconds=1), renew=timedelta(milliseconds=200))
    ledger = Ledger(ledger_url, times)
    ledger.database.upgrade()
    add_study(ledger)
    add(ledger, "a")
    with subprocess.Popen(
        [sys.executable, "-c", _BORROWER, ledger_url], stdout=subprocess.PIPE, text=True
    ) as borrower:
        assert borrower.stdout is not None
        assert borrower.stdout.readline().strip() == str(LIMIT)
        add(ledger, "b")
        time.sleep(1.5)  # it renews its lease
        with ledger.claim(QUEUE, limit=LIMIT) as none:
            assert none is None
        os.kill(borrower.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with ledger.claim(QUEUE, limit=LIMIT) as one:
            if one is not None:
                # The killed one's Job is ready again and waits for a seat; the others are free.
                assert one.seats(wanted=LIMIT, busy=1) == LIMIT - 1
                end(one)
                break
        time.sleep(0.1)
    else:
        pytest.fail("the seats of a killed process were never free again")
    ledger.close()
