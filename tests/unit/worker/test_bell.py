"""The bell rings for what is due, once in a while, and leaves nothing open that a fork would copy."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_ai.ledger import Ledger, tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.work import Kind
from pacs_ai.settings import Settings, loads
from tests.unit.ledger.test_work import STUDY, TIMES, add_study
from worker.bell import Bell


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = loads(
        "site: {name: test, time_zone: UTC, use: research, responsible: nobody}\n"
        f"data: {tmp_path}\n"
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
