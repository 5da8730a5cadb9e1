"""The bell rings for what is due, once in a while, and leaves nothing open that a fork would copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_ai.ledger import Ledger, tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.work import Kind
from pacs_ai.retention import Retention
from pacs_ai.settings import Settings, loads
from tests.peers.postgresql import Cluster
from tests.unit.ledger.test_work import STUDY, TIMES, add_study
from worker.bell import Bell


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    made = loads(
        "site: {name: test, time_zone: UTC, use: research, responsible: nobody}\n"
        f"data: {tmp_path}\nledger: {ledger_url}\n"
    )
    ledger = Ledger(made.ledger_url, TIMES)
    ledger.database.upgrade()
    add_study(ledger)
    ledger.close()
    return made


def _add(settings: Settings, subject: str, *, start_in: float = 0) -> None:
    ledger = Ledger(settings.ledger_url, TIMES)
    with ledger.database.write() as connection:
        start = now() + timedelta(seconds=start_in)
        work.add(
            connection, Kind.ROUTE, queue="route", subject=subject, study=STUDY, not_before=start
        )
    ledger.close()


def test_due_work_is_rung_for_once_in_ten_seconds(settings: Settings) -> None:
    rung: list[tuple[str, str]] = []
    bell = Bell(settings, lambda queue, work_id: rung.append((queue, work_id)), queues=["route"])
    _add(settings, "due")
    _add(settings, "later", start_in=60)
    ledger = Ledger(settings.ledger_url, TIMES)
    bell.look(ledger)
    bell.look(ledger)
    assert [queue for queue, _ in rung] == ["route"]


def test_only_the_leader_rings(settings: Settings) -> None:
    rung: list[str] = []
    leader = Bell(settings, lambda *_: rung.append("leader"), queues=["route"])
    other = Bell(settings, lambda *_: rung.append("other"), queues=["route"])
    ledger = Ledger(settings.ledger_url, TIMES)
    leader.look(ledger)
    _add(settings, "due")
    other.look(ledger)
    leader.look(ledger)
    assert rung == ["leader"]


def test_no_database_file_is_open_between_looks(settings: Settings) -> None:
    # A process forked while SQLite is open inherits locks that are not its own: it is busy for ever.
    bell = Bell(settings, lambda *_: None, queues=["route"])
    bell.look(Ledger(settings.ledger_url, TIMES))
    files = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert not [name for name in files if str(settings.data) in name]


def test_no_connection_to_a_server_is_open_between_looks(
    postgresql: Cluster, tmp_path: Path
) -> None:
    # A process forked while a connection is open shares its socket: two would talk on one line.
    name = postgresql.lend_ledger()
    url = postgresql.url(name)
    made = loads(
        "site: {name: test, time_zone: UTC, use: research, responsible: nobody}\n"
        f"data: {tmp_path}\nledger: {url}\n"
    )
    bell = Bell(made, lambda *_: None, queues=["route"])
    bell.look(Ledger(url, TIMES))
    wait_until(lambda: postgresql.connections(name) == 0)


def test_the_leader_seals_what_happened_since_its_last_look(settings: Settings) -> None:
    leader, other = (Bell(settings, lambda *_: None, queues=["route"]) for _ in range(2))
    ledger = Ledger(settings.ledger_url, TIMES)
    leader.look(ledger)
    ledger.set_switch("routing", actor="anna", paused=True)
    other.look(ledger)
    assert ledger.verify_events().unsealed == 1
    leader.look(ledger)
    verdict = ledger.verify_events()
    assert (verdict.sealed, verdict.unsealed, verdict.broken) == (1, 0, None)
    ledger.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_work_of_an_endpoint_that_is_gone_is_held_with_the_reason(settings: Settings) -> None:
    bell = Bell(settings, lambda *_: None, queues=["assemble"])
    _add(settings, "orphan")
    ledger = Ledger(settings.ledger_url, TIMES)
    bell.look(ledger)
    with ledger.database.read() as connection:
        rows = connection.execute(select(tables.work).where(tables.work.c.queue == "route")).all()
    assert [row.state for row in rows] == ["held"]
    assert "not in the settings" in rows[0].reason
    ledger.close()


def test_a_ring_that_fails_does_not_end_the_bell(settings: Settings) -> None:
    rung: list[str] = []

    def ring(queue: str, work_id: str) -> None:
        rung.append(queue)
        if len(rung) == 1:
            raise KeyError(queue)
        bell.stop()

    bell = Bell(settings, ring, queues=["route"])
    for subject in ("one", "two"):
        _add(settings, subject)
    bell.run()
    assert len(rung) == 2


def test_the_leader_lets_retention_remove_and_rings_though_it_cannot(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    rung: list[str] = []

    def look(retention: Retention, ledger: Ledger) -> bool:
        looks.append("look")
        raise OSError("read-only")

    monkeypatch.setattr(Retention, "look", look)
    leader = Bell(settings, lambda *_: rung.append("leader"), queues=["route"])
    other = Bell(settings, lambda *_: rung.append("other"), queues=["route"])
    _add(settings, "due")
    ledger = Ledger(settings.ledger_url, TIMES)
    leader.look(ledger)
    other.look(ledger)
    assert (looks, rung) == (["look"], ["leader"])
