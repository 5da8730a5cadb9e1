"""Calls side by side: as many as there are seats, answers in order, nothing left under way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from pacs_ai import results
from pacs_ai.errors import InferenceError, LeaseLostError
from pacs_ai.ledger import Ledger, tables, work
from pacs_ai.ledger.rows import Kind
from pacs_ai.models import parse2d
from pacs_ai.models.seats import MOST, alone, side_by_side
from pacs_ai.results import Done, Outcome
from pacs_ai.study import Instance
from tests.unit.ledger.test_work import QUEUE, STUDY, _ledger
from tests.unit.models.fake_endpoint import Answer, Asked, endpoint
from tests.unit.models.test_slicewise import CT, bright, job
from tests.unit.pixels.made import slices

MANY = np.concatenate([CT] * 3)


@dataclass
class Granted:
    """Seats as a test grants them, and what was asked for."""

    seats: int
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, *, wanted: int, busy: int) -> int:
        self.asked.append((wanted, busy))
        return max(1, busy, min(wanted, self.seats))


@dataclass
class Counting:
    """Counts the calls that are under way."""

    seconds: float = 0.02
    most: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, one: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds * random.random())
        with self.lock:
            self.now -= 1
        return one * one


@pytest.mark.parametrize("seats", [1, 2, 3, MOST, 64])
def test_as_many_calls_are_under_way_as_there_are_seats_and_answers_are_in_order(
    seats: int,
) -> None:
    call, taken = Counting(), []
    side_by_side(range(30), call, lambda one, answer: taken.append((one, answer)), Granted(seats))
    assert taken == [(one, one * one) for one in range(30)]
    assert call.most <= min(seats, MOST)
    assert call.most > 1 or seats == 1


def test_without_a_ledger_there_is_one_call_at_a_time() -> None:
    call = Counting()
    side_by_side(range(8), call, lambda *_: None, alone)
    assert call.most == 1


def test_what_is_asked_waits_until_there_is_room_for_it() -> None:
    made: list[int] = []
    taken: list[int] = []

    def asked() -> Iterator[int]:
        for one in range(20):
            assert one - len(taken) <= MOST  # what was decoded and not taken stays in memory
            made.append(one)
            yield one

    side_by_side(asked(), Counting(), lambda one, _: taken.append(one), Granted(64))
    assert made == taken == [*range(20)]


def test_seats_that_nothing_is_left_for_are_given_back() -> None:
    seats = Granted(MOST)
    side_by_side(range(6), Counting(), lambda *_: None, seats)
    assert seats.asked[-1] == (1, 0)
    wanted_at_the_end = [wanted for wanted, _ in seats.asked[-MOST:]]
    assert wanted_at_the_end == [1] * MOST


@pytest.mark.parametrize("faulty", [0, 3, 9])
def test_an_error_in_one_call_ends_all_and_leaves_none_under_way(faulty: int) -> None:
    call, begun = Counting(), []

    def failing(one: int) -> int:
        begun.append(one)
        call(one)
        if one == faulty:
            raise InferenceError("no")
        return one

    with pytest.raises(InferenceError):
        side_by_side(range(1000), failing, lambda *_: None, Granted(MOST))
    assert call.now == 0
    assert len(begun) <= faulty + MOST


def test_of_two_errors_the_first_in_order_is_told() -> None:
    def failing(one: int) -> int:
        time.sleep(0.1 if one == 0 else 0)
        raise InferenceError(f"error of {one}")

    with pytest.raises(InferenceError, match="error of 0"):
        side_by_side(range(4), failing, lambda *_: None, Granted(MOST))


def test_a_lost_lease_begins_no_call_more() -> None:
    call, begun, granted = Counting(), [], []

    def lost(*, wanted: int, busy: int) -> int:
        if len(granted) >= 2:  # those that were granted may not have noted their call yet
            raise LeaseLostError("taken over")
        granted.append(wanted)
        return wanted

    def counted(one: int) -> int:
        begun.append(one)
        return call(one)

    with pytest.raises(LeaseLostError):
        side_by_side(range(10), counted, lambda *_: None, lost)
    assert len(begun) == 2
    assert call.now == 0


# ---------------------------------------------------------------------- over Jobs and workers


def shuffled(asked: Asked) -> Answer:
    """Answer as bright does, later calls often before earlier ones."""
    return Answer(bright(asked), delay=random.choice([0.1, 0.2, 0.4]))


def run(ledger: Ledger, made: list[Instance], target: Any) -> list[Outcome]:
    """Carry out Jobs of the queue until there is none, as a worker does."""
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with ledger.claim(QUEUE, limit=target.concurrency) as attempt:
            if attempt is not None:
                outcomes.append(parse2d.infer(job(made, "liver"), target, attempt.seats))
                with attempt.commit():
                    pass
                continue
        with ledger.database.read() as connection:
            open_rows = select(func.count()).where(tables.work.c.state.in_(["ready", "running"]))
            if not connection.scalar(open_rows):
                break
        time.sleep(0.02)
    return outcomes


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_two_workers_never_have_more_calls_under_way_than_the_endpoint_allows(
    tmp_path: Path, ledger_url: str, concurrency: int
) -> None:
    made = slices(tmp_path, MANY)
    first, second = _ledger(ledger_url), _ledger(ledger_url)
    with first.database.write() as connection:
        for subject in "abc":
            work.add(connection, Kind.INFER, queue=QUEUE, subject=subject, study=STUDY)
    outcomes: list[Outcome] = []
    with endpoint(shuffled) as fake:
        target = fake.settings("parse2d", concurrency=concurrency)
        workers = [
            threading.Thread(target=lambda one=one: outcomes.extend(run(one, made, target)))
            for one in (first, second)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert fake.most <= concurrency
        assert fake.most > 1 or concurrency == 1
    for ledger in (first, second):
        ledger.close()
    assert len(outcomes) == 3
    written = {results.dumps(one.results) for one in outcomes if isinstance(one, Done)}
    assert len(written) == 1  # the same bytes, whatever the order of the answers


def test_a_job_alone_uses_the_whole_endpoint_and_says_the_same(
    tmp_path: Path, ledger_url: str
) -> None:
    made = slices(tmp_path, MANY)
    ledger = _ledger(ledger_url)
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue=QUEUE, subject="a", study=STUDY)
    with endpoint(shuffled) as fake:
        (beside,) = run(ledger, made, fake.settings("parse2d", concurrency=3))
        assert fake.most in (2, 3)
    with endpoint(bright) as fake:
        after = parse2d.infer(job(made, "liver"), fake.settings("parse2d"))
        assert fake.most == 1
    ledger.close()
    assert isinstance(beside, Done)
    assert isinstance(after, Done)
    assert results.dumps(beside.results) == results.dumps(after.results)
