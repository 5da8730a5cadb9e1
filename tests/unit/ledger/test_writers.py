"""Several writers at once: what one decides is still true when it writes, on either database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert, select

from pacs_ai.errors import InferenceUnavailableError
from pacs_ai.ledger import Ledger, arrivals, clock, retention, studies, tables, work
from pacs_ai.ledger.arrivals import Arrival
from pacs_ai.ledger.clock import host_time, now
from pacs_ai.ledger.rows import Kind
from pacs_ai.study import Head
from tests.peers.postgresql import Cluster
from tests.unit.ledger.test_work import QUEUE, STUDY, TIMES, _ledger, add_study

HEAD = Head(
    SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
    SOPInstanceUID="1.2.3.4",
    StudyInstanceUID=STUDY,
    SeriesInstanceUID="1.2.3.5",
    Modality="CT",
    Manufacturer="",
)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    made = _ledger(ledger_url)
    yield made
    made.close()


def _at_once(*tasks: Callable[[], None]) -> None:
    faults: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # told by the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_claimers_at_once_never_pass_the_limit_of_a_queue(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        for number in range(30):
            subject = f"job {number}"
            work.add(connection, Kind.INFER, queue=QUEUE, subject=subject, study=STUDY)
    under_way, most, taken = 0, 0, 0
    count = threading.Lock()

    def claim() -> None:
        nonlocal under_way, most, taken
        while taken < 30:
            with ledger.claim(QUEUE, limit=2) as attempt:
                if attempt is None:
                    time.sleep(0.01)
                    continue
                with count:
                    under_way += 1
                    taken += 1
                    most = max(most, under_way)
                time.sleep(0.02)
                with count:
                    under_way -= 1
                with attempt.commit():
                    pass

    _at_once(*[claim] * 6)
    assert (taken, most) == (30, 2)


def _version_of_two_jobs(ledger: Ledger) -> None:
    at = host_time()
    version = {"id": "version", "study_instance_uid": STUDY, "number": 1, "content_key": "k"}
    job = {"study_instance_uid": STUDY, "rule": "r", "endpoint": "e", "kind": "k", "inputs": {}}
    job |= {"flagged": False}
    with ledger.database.write() as connection:
        connection.execute(
            insert(tables.versions).values(**version, frozen_at=at, evidence="quiet")
        )
        for name in ("one", "two"):
            connection.execute(
                insert(tables.jobs).values(
                    id=name, key=name, parameters={}, model={}, created_at=at, **job
                )
            )
            connection.execute(
                insert(tables.version_jobs).values(version_id="version", job_id=name, position=0)
            )
            work.add(connection, Kind.INFER, queue=QUEUE, subject=name, study=STUDY)


def test_of_two_jobs_that_end_at_once_one_asks_for_the_page(ledger: Ledger) -> None:
    # Each sees the other still under way, unless the second waits for the first.
    _version_of_two_jobs(ledger)
    both = threading.Barrier(2)

    def end() -> None:
        with ledger.claim(QUEUE) as attempt:
            assert attempt is not None
            both.wait()
            with attempt.commit() as commit:
                job = attempt.claimed.subject
                studies.end_job(
                    commit.connection,
                    job,
                    outcome="done",
                    flagged=False,
                    reason=None,
                    results_digest=None,
                )
                work.add_page_when_settled(commit.connection, STUDY)
                time.sleep(0.2)

    _at_once(end, end)
    with ledger.database.read() as connection:
        pages = select(tables.work.c.subject).where(tables.work.c.kind == Kind.ENCODE)
        assert connection.scalars(pages).all() == ["page:version"]


def test_the_same_bytes_on_two_associations_are_one_instance(ledger: Ledger) -> None:
    both = threading.Barrier(2)
    arrival = Arrival(HEAD, "d", 1, "1.2", "pacs", timedelta())
    new: list[bool] = []

    def receive() -> None:
        with ledger.database.write() as connection:
            if connection.dialect.name == "postgresql":
                both.wait()  # SQLite lets the second begin when the first has ended
                assert not arrivals.known(connection, arrival)
            retention.hold_files(connection, [STUDY])
            new.extend(arrivals.record(connection, [arrival]).new)
            time.sleep(0.1)

    _at_once(receive, receive)
    with ledger.database.read() as connection:
        assert studies.counts(connection, STUDY) == {"source": 1}
    assert sorted(new) == [False, True]


def test_one_uid_under_two_studies_at_once_is_seen_by_whoever_comes_second(ledger: Ledger) -> None:
    both = threading.Barrier(2)

    def receive(study: str, digest: str) -> None:
        head = HEAD._replace(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
        arrival = Arrival(head, digest, 1, "1.2", "pacs", timedelta())
        both.wait()
        with ledger.database.write() as connection:
            retention.hold_files(connection, [study], [head.SOPInstanceUID])
            arrivals.record(connection, [arrival])
            time.sleep(0.1)

    _at_once(lambda: receive(STUDY, "d"), lambda: receive("1.2.9", "e"))
    with ledger.database.read() as connection:
        states = connection.scalars(select(tables.instances.c.state)).all()
    assert sorted(states) == ["kept", "unchecked"], "the second is compared before anything starts"


def test_work_that_is_put_off_while_it_is_claimed_is_asked_for_again(ledger: Ledger) -> None:
    # An Instance that comes while its Study is being assembled starts a further look.
    with ledger.database.write() as connection:
        work.add(connection, Kind.ASSEMBLE, queue=work.ASSEMBLE, subject=STUDY, study=STUDY)
    with ledger.claim(work.ASSEMBLE) as attempt:
        assert attempt is not None
        with ledger.database.write() as connection:
            work.add(connection, Kind.ASSEMBLE, queue=work.ASSEMBLE, subject=STUDY, study=STUDY)
        with attempt.commit():
            pass
    with ledger.database.read() as connection:
        states = connection.scalars(select(tables.work.c.state)).all()
    assert sorted(states) == ["done", "ready"]


def test_of_many_that_want_to_lead_one_does(ledger: Ledger) -> None:
    led: list[str] = []

    def lead(owner: str) -> None:
        if ledger.lead("bell", owner=owner, lease=timedelta(seconds=10)):
            led.append(owner)

    _at_once(*(lambda owner=f"{number}": lead(owner) for number in range(8)))  # type: ignore[misc]
    assert len(led) == 1


# ---------------------------------------------------------------------- the clock


def _at(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Let every clock be so far ahead, the server's too."""
    monkeypatch.setattr(
        clock, "take_clock", lambda _: clock._clock.set(lambda: host_time() + ahead)
    )


def test_what_a_clock_that_was_ahead_has_dated_waits_for_nobody_once_it_is_right(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = timedelta(hours=8)
    _at(monkeypatch, hours)
    lease = timedelta(seconds=10)
    assert ledger.lead("bell", owner="before", lease=lease)
    with ledger.database.write() as connection:
        for kind, queue in ((Kind.ROUTE, work.ROUTE), (Kind.ENCODE, work.ENCODE)):
            work.add(connection, kind, queue=queue, subject="s", study=STUDY)
        later = now() + timedelta(minutes=1)
        work.add(connection, Kind.INFER, queue=QUEUE, subject="s", study=STUDY, not_before=later)
    with ledger.database.write() as connection:
        times, paused = ledger.times, ()
        assert work.claim(connection, work.ROUTE, times=times, limit=9, paused=paused)
    _at(monkeypatch, timedelta())  # its process has died, and the clock is right
    assert ledger.lead("bell", owner="after", lease=lease)
    assert not ledger.lead("bell", owner="other", lease=lease), "whose lease is honest keeps it"
    assert {queue for queue, _ in ledger.due()} == {work.ROUTE, work.ENCODE, QUEUE}
    assert not ledger.is_moving(timedelta(0))
    for queue in (work.ROUTE, work.ENCODE, QUEUE):
        with ledger.database.write() as connection:
            assert work.claim(connection, queue, times=times, limit=9, paused=paused), queue
    assert ledger.due() == []
    assert ledger.is_moving(timedelta(0))


def test_what_is_put_off_after_a_clock_was_set_right_waits_as_ever(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(monkeypatch, timedelta(hours=8))
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue=QUEUE, subject="s", study=STUDY)
    _at(monkeypatch, timedelta())
    with ledger.claim(QUEUE):
        raise InferenceUnavailableError("busy", retry_after=600)
    assert ledger.due() == []
    with ledger.claim(QUEUE) as attempt:
        assert attempt is None


def test_a_clock_that_is_set_back_takes_no_work_from_who_is_at_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue=QUEUE, subject="s", study=STUDY)
    with ledger.database.write() as connection:
        claimed = work.claim(connection, QUEUE, times=ledger.times, limit=9, paused=())
        assert claimed is not None
    _at(monkeypatch, -timedelta(minutes=4))
    assert ledger.due() == []
    with ledger.claim(QUEUE) as attempt:
        assert attempt is None
    with ledger.database.write() as connection:
        assert work.renew(connection, claimed, times=ledger.times)


def test_the_clock_of_a_server_decides_and_not_the_hosts(
    postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(postgresql.url(postgresql.lend_ledger()), TIMES)
    ledger.database.upgrade()
    add_study(ledger)
    true = host_time()
    ahead = clock.ContextVar[Callable[[], datetime]]("clock", default=lambda: true.replace(year=9))
    monkeypatch.setattr(clock, "_clock", ahead)
    with ledger.database.write() as connection:
        work.add(connection, Kind.INFER, queue=QUEUE, subject="job", study=STUDY)
    with ledger.claim(QUEUE) as attempt:
        assert attempt is not None
        assert abs(attempt.claimed.started_at - true) < timedelta(seconds=60)
        with attempt.commit():
            pass
    assert now().year == 9
    ledger.close()


def test_the_time_goes_on_inside_a_transaction(ledger: Ledger) -> None:
    with ledger.database.write():
        first = now()
        time.sleep(0.05)
        assert timedelta(seconds=0.04) < now() - first < timedelta(seconds=5)
        assert first.utcoffset() == timedelta(0)
