"""Claims, fences, strikes and back-off: the rules of the work table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from pacs_ai.errors import InferenceError, InferenceUnavailableError, LeaseLostError
from pacs_ai.ledger import Ledger, tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.rows import Kind, State
from pacs_ai.settings import WorkTimes

STUDY = "1.2.3"
QUEUE = "infer.cxrreport"
TIMES = WorkTimes(
    lease=timedelta(seconds=30),
    renew=timedelta(seconds=10),
    backoff=(timedelta(seconds=5), timedelta(seconds=30)),
)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    made = _ledger(ledger_url)
    yield made
    made.close()


def _ledger(url: str, times: WorkTimes = TIMES) -> Ledger:
    made = Ledger(url, times)
    made.database.upgrade()
    add_study(made)
    return made


def add_study(ledger: Ledger) -> None:
    """Make the Study that the work of these tests is about."""
    with ledger.database.write() as connection:
        if connection.scalar(select(tables.studies.c.study_instance_uid)) is None:
            at = now()
            connection.execute(
                insert(tables.studies).values(
                    study_instance_uid=STUDY,
                    peer="pacs",
                    accession_number="",
                    first_at=at,
                    last_at=at,
                )
            )


def _add(ledger: Ledger, subject: str = "job", **more: object) -> None:
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue=QUEUE, subject=subject, study=STUDY, **more)  # type: ignore[arg-type]


def _row(ledger: Ledger, subject: str = "job") -> object:
    with ledger.database.read() as connection:
        return connection.execute(select(tables.work).where(tables.work.c.subject == subject)).one()


def _expire_lease(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        connection.execute(update(tables.work).values(lease_until=now() - timedelta(seconds=1)))


def test_a_claim_counts_the_attempt_before_the_work_starts(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE) as attempt:
        assert attempt is not None
        row = _row(ledger)
        assert (row.state, row.attempts, row.fence) == ("running", 1, 1)
        with attempt.commit():
            pass
    assert _row(ledger).state == "done"


def test_claimed_work_is_not_claimed_twice(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE) as attempt:
        assert attempt is not None
        with ledger.claim(QUEUE) as second:
            assert second is None
        with attempt.commit():
            pass


def test_a_queue_never_runs_more_than_its_limit(ledger: Ledger) -> None:
    _add(ledger, "a")
    _add(ledger, "b")
    with ledger.claim(QUEUE, limit=1) as attempt:
        assert attempt is not None
        with ledger.claim(QUEUE, limit=1) as second:
            assert second is None
        with ledger.claim(QUEUE, limit=2) as third:
            assert third is not None
            with third.commit():
                pass
        with attempt.commit():
            pass


def test_the_higher_priority_and_then_the_nearer_deadline_is_claimed_first(ledger: Ledger) -> None:
    _add(ledger, "old")
    _add(ledger, "due", deadline=now() + timedelta(minutes=1))
    _add(ledger, "urgent", priority=1)
    taken = []
    for _ in range(3):
        with ledger.claim(QUEUE) as attempt:
            assert attempt is not None
            taken.append(attempt.claimed.subject)
            with attempt.commit():
                pass
    assert taken == ["urgent", "due", "old"]


def test_a_worker_that_slept_too_long_cannot_commit(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE) as sleeper:
        assert sleeper is not None
        _expire_lease(ledger)
        with ledger.claim(QUEUE) as other:
            assert other is not None
            assert other.claimed.fence > sleeper.claimed.fence
            with pytest.raises(LeaseLostError), sleeper.commit() as commit:
                commit.connection.execute(
                    insert(tables.switches).values(name="late", actor="sleeper")
                )
            with other.commit():
                pass
    with ledger.database.read() as connection:
        assert connection.execute(select(tables.switches)).all() == []
    assert _row(ledger).state == "done"


def test_the_lease_is_renewed_while_the_step_works(ledger_url: str) -> None:
    short = WorkTimes(lease=timedelta(seconds=0.6), renew=timedelta(seconds=0.1))
    ledger = _ledger(ledger_url, short)
    _add(ledger)
    with ledger.claim(QUEUE) as attempt:
        assert attempt is not None
        time.sleep(1.2)
        with ledger.claim(QUEUE) as other:
            assert other is None
        with attempt.commit():
            pass
    ledger.close()


def test_three_attempts_without_an_outcome_are_held_and_shown(ledger: Ledger) -> None:
    _add(ledger)
    for _ in range(3):
        with ledger.claim(QUEUE) as attempt:
            assert attempt is not None
            raise_nothing_but_end = ZeroDivisionError("a fault of ours")
            raise raise_nothing_but_end
    row = _row(ledger)
    assert row.state == "held"
    assert row.strikes == 3
    assert "3 attempts without an outcome" in row.reason
    assert "a fault of ours" not in row.reason


def test_expired_leases_count_as_strikes(ledger: Ledger) -> None:
    _add(ledger)
    for expected in ("running", "running", "running", "held"):
        with ledger.database.write() as connection:
            work.claim(connection, QUEUE, times=TIMES, limit=9, paused=[])
        assert _row(ledger).state == expected
        _expire_lease(ledger)


def test_a_refusal_that_may_pass_is_put_off_and_is_no_strike(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("the endpoint answered 429")
    row = _row(ledger)
    assert (row.state, row.strikes) == ("ready", 0)
    assert timedelta(seconds=2) < row.not_before - now() <= timedelta(seconds=5)
    with ledger.claim(QUEUE) as early:
        assert early is None


def test_what_the_other_side_asks_for_wins_over_the_table(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("busy", retry_after=120)
    assert _row(ledger).not_before - now() > timedelta(seconds=110)


def test_a_refusal_past_the_deadline_fails(ledger: Ledger) -> None:
    _add(ledger, deadline=now() + timedelta(seconds=0.3))
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("the endpoint answered 503")
    assert _row(ledger).state == "ready"
    time.sleep(0.4)  # the last try is at the deadline itself
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("the endpoint answered 503")
    row = _row(ledger)
    assert row.state == "failed"
    assert "deadline" in row.reason


def test_an_error_that_time_does_not_heal_fails_at_once(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE):
        raise InferenceError("the endpoint answered 400")
    assert _row(ledger).state == "failed"


def test_a_failed_or_held_row_asks_the_worklist_rules(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE):
        raise InferenceError("the endpoint answered 400")
    with ledger.database.read() as connection:
        kinds = connection.scalars(select(tables.work.c.kind)).all()
    assert "worklist" in kinds


def test_a_person_releases_what_is_held(ledger: Ledger) -> None:
    _add(ledger)
    with ledger.claim(QUEUE):
        raise InferenceError("the endpoint answered 400")
    assert ledger.release(STUDY, actor="anna") == 1
    assert _row(ledger).state == "ready"
    with ledger.database.read() as connection:
        actors = connection.scalars(select(tables.events.c.actor)).all()
    assert "anna" in actors


def test_what_is_released_is_tried_as_long_as_what_is_new(ledger: Ledger) -> None:
    _add(ledger, deadline=now() - timedelta(minutes=1))
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("the endpoint answered 503")
    assert _row(ledger).state == "failed"
    asked_at = _row(ledger).created_at
    ledger.release(STUDY, actor="anna", patience={Kind.INFER: timedelta(minutes=30)})
    assert _row(ledger).attempts == 0
    assert _row(ledger).created_at == asked_at, "every date in a result derives from it"
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("the endpoint answered 503")
    assert _row(ledger).state == "ready"
    assert timedelta(minutes=29) < _row(ledger).deadline - now() < timedelta(minutes=31)


def test_what_waited_for_a_persons_word_is_tried_as_long_as_what_is_new(ledger: Ledger) -> None:
    _add(ledger, deadline=now() - timedelta(minutes=1))
    ledger.release(STUDY, actor="anna", patience={Kind.INFER: timedelta(minutes=30)})
    assert timedelta(minutes=29) < _row(ledger).deadline - now() < timedelta(minutes=31)


def test_the_time_of_a_pause_is_none_in_which_a_delivery_was_tried(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(subject: str, *, days: int) -> None:
        with ledger.database.write() as connection:
            deadline = now() + timedelta(days=days)
            work.add(
                connection,
                Kind.DELIVER,
                queue="deliver.pacs",
                subject=subject,
                study=STUDY,
                deadline=deadline,
            )

    ask("before", days=7)
    ledger.set_switch("delivery", actor="anna", paused=True)
    begun = now()
    for later, subject in ((6, "meanwhile"), (8, None)):
        at = begun + timedelta(days=later)
        monkeypatch.setattr("pacs_ai.ledger.work.now", lambda at=at: at)
        if subject is not None:
            ask(subject, days=6 + 7)
    ledger.set_switch("delivery", actor="anna", paused=False)
    left = {
        subject: round((_row(ledger, subject).deadline - at) / timedelta(days=1))
        for subject in ("before", "meanwhile")
    }
    assert left == {"before": 7, "meanwhile": 7}


def test_a_paused_kind_is_not_started_until_it_goes_on(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        work.add(connection, Kind.DELIVER, queue="deliver.pacs", subject=STUDY, study=STUDY)
    ledger.set_switch("delivery", actor="anna", paused=True)
    with ledger.claim("deliver.pacs") as attempt:
        assert attempt is None
    ledger.set_switch("delivery", actor="anna", paused=False)
    with ledger.claim("deliver.pacs") as attempt:
        assert attempt is not None
        with attempt.commit():
            pass


def test_one_process_leads_until_its_lease_ends(ledger: Ledger) -> None:
    lease = timedelta(seconds=0.2)
    assert ledger.lead("bell", owner="one", lease=lease)
    assert not ledger.lead("bell", owner="two", lease=lease)
    assert ledger.lead("bell", owner="one", lease=lease)
    time.sleep(0.3)
    assert ledger.lead("bell", owner="two", lease=lease)


def test_many_threads_claim_each_row_once(ledger_url: str) -> None:
    ledger = _ledger(ledger_url)
    for number in range(40):
        _add(ledger, f"job {number}")
    taken: list[str] = []

    def take() -> None:
        while True:
            with ledger.claim(QUEUE) as attempt:
                if attempt is None:
                    return
                taken.append(attempt.claimed.subject)
                with attempt.commit():
                    pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"job {number}" for number in range(40))
    ledger.close()


_MOVES = st.lists(
    st.sampled_from(["done", "crash", "transient", "failed", "expire", "release"]), max_size=12
)


@given(moves=_MOVES)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_walk_leaves_the_table_of_transitions(ledger: Ledger, moves: list[str]) -> None:
    with ledger.database.write() as connection:
        connection.execute(delete(tables.work))
    _add(ledger)
    previous = State.READY
    for move in moves:
        if move == "release":
            ledger.release(STUDY, actor="anna")
        else:
            _walk(ledger, move)
        current = State(_row(ledger).state)
        reachable = {previous} | work.TRANSITIONS[previous]
        reachable |= {after for state in reachable for after in work.TRANSITIONS[state]}
        assert current in reachable
        if previous is State.DONE:
            assert current is State.DONE
        previous = current
    assert _row(ledger).strikes <= TIMES.strikes


def _walk(ledger: Ledger, move: str) -> None:
    with ledger.database.write() as connection:
        connection.execute(update(tables.work).values(not_before=now()))
    if move == "expire":
        with ledger.database.write() as connection:
            work.claim(connection, QUEUE, times=TIMES, limit=9, paused=[])
        _expire_lease(ledger)
        return
    with ledger.claim(QUEUE) as attempt:
        if attempt is None:
            return
        if move == "done":
            with attempt.commit():
                pass
        elif move == "transient":
            raise InferenceUnavailableError("503")
        elif move == "failed":
            raise InferenceError("400")
        else:
            raise ZeroDivisionError
