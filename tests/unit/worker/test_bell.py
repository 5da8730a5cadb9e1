"""The bell rings for what is due, once in a while, and leaves nothing open that a fork would copy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from pacs_ai.ledger import Ledger, tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.rows import Kind
from pacs_ai.retention import Retention
from pacs_ai.settings import Settings, loads
from tests.peers.postgresql import Cluster
from tests.unit.ledger.test_work import STUDY, TIMES, add_study
from worker import bell as bell_module
from worker.app import Face
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


def test_an_event_that_cannot_be_sealed_silences_no_bell(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rung: list[str] = []
    bell = Bell(settings, lambda queue, _: rung.append(queue), queues=["route"])
    _add(settings, "due")

    def unreadable(_: Ledger) -> int:
        raise ValueError("Invalid isoformat string")

    monkeypatch.setattr(Ledger, "seal_events", unreadable)
    bell.look(Ledger(settings.ledger_url, TIMES))
    assert rung == ["route"]
    assert "pacs-ai audit verify" in caplog.text


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
    ledger = Ledger(settings.ledger_url, TIMES)
    bell.look(ledger)
    files = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    opened = [one.name for one in files if str(settings.data) in str(one.readlink())]
    assert [one for one in opened if not _is_path_alone(one)] == []


def _is_path_alone(descriptor: str) -> bool:
    """Tell whether a descriptor stands for a file without opening it: it has no locks (open(2), O_PATH)."""
    text = Path("/proc/self/fdinfo", descriptor).read_text()
    (flags,) = [line.split()[1] for line in text.splitlines() if line.startswith("flags:")]
    return bool(int(flags, 8) & os.O_PATH)


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


def test_work_whose_worker_was_stopped_with_its_endpoint_is_held_too(settings: Settings) -> None:
    bell = Bell(settings, lambda *_: None, queues=["assemble"])
    _add(settings, "orphan")
    ledger = Ledger(settings.ledger_url, TIMES)
    mine, soon = tables.work.c.queue == "route", timedelta(minutes=1)

    def look(lease_until: datetime) -> str:
        with ledger.database.write() as connection:
            running = update(tables.work).where(mine)
            connection.execute(running.values(state="running", lease_until=lease_until))
        bell.look(ledger)
        with ledger.database.read() as connection:
            return str(connection.scalar(select(tables.work.c.state).where(mine)))

    assert look(now() + soon) == "running"  # by a worker that has the settings of before
    assert look(now() - soon) == "held"
    ledger.close()


def test_nobody_is_rung_for_who_has_no_queue(settings: Settings) -> None:
    face = Face(settings, "memory://")
    face.ring("infer:gone", "one")
    face.ring("route", "one")


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


# ---------------------------------------------------------------------- a consumer that went deaf


@pytest.fixture
def ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Bell, list[str]]:
    """A bell that gives up when nobody took due work for 0.2 s, and what it did."""
    monkeypatch.setattr(bell_module, "_STALLED", timedelta(seconds=0.2))
    given: list[str] = []
    bell = Bell(
        settings, lambda *_: None, queues=["route"], give_up=lambda: given.append("gave up")
    )
    return bell, given


def _look_for(bell: Bell, ledger: Ledger, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        bell.look(ledger)
        time.sleep(0.02)


def test_due_work_that_nobody_takes_ends_the_worker(
    settings: Settings, ended: tuple[Bell, list[str]]
) -> None:
    bell, given = ended
    ledger = Ledger(settings.ledger_url, TIMES)  # the bell closes it after each look
    _look_for(bell, ledger, 0.3)
    assert given == [], "nothing is due"
    _add(settings, "due")
    bell.look(ledger)
    assert given == [], "it was due for a moment only"
    _look_for(bell, ledger, 0.4)
    assert given


def test_work_that_somebody_carries_out_ends_nobody(
    settings: Settings, ended: tuple[Bell, list[str]]
) -> None:
    bell, given = ended
    ledger = Ledger(settings.ledger_url, TIMES)
    _add(settings, "under way")
    _add(settings, "due")
    with ledger.claim("route") as attempt:
        assert attempt is not None
        other = Ledger(settings.ledger_url, TIMES)
        _look_for(bell, other, 0.6)
        assert given == []
        with attempt.commit():
            pass
    ledger.close()


def test_work_that_is_taken_one_after_the_other_ends_nobody(
    settings: Settings, ended: tuple[Bell, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bell, given = ended
    # Far longer than a busy machine takes from one claim to the next, and shorter than all of them.
    monkeypatch.setattr(bell_module, "_STALLED", timedelta(seconds=1))
    ledger = Ledger(settings.ledger_url, TIMES)
    for number in range(8):
        _add(settings, f"due {number}")
    for _ in range(6):
        with ledger.claim("route") as attempt:
            assert attempt is not None
            with attempt.commit():
                pass
        ledger.close()
        _look_for(bell, Ledger(settings.ledger_url, TIMES), 0.25)
    assert given == []


def test_who_does_not_lead_ends_nobody(settings: Settings, ended: tuple[Bell, list[str]]) -> None:
    bell, given = ended
    ledger = Ledger(settings.ledger_url, TIMES)
    Bell(settings, lambda *_: None, queues=["route"]).look(ledger)
    _add(settings, "due")
    _look_for(bell, ledger, 0.4)
    assert given == []


def test_who_gives_up_ends_with_the_exit_code_that_is_documented() -> None:
    # docs/when-something-dies.md; 75 is EX_TEMPFAIL of sysexits(3).
    give_up = "from worker.bell import Bell; Bell.__init__.__kwdefaults__['give_up']()"
    ended = subprocess.run([sys.executable, "-c", give_up], timeout=60, check=False)
    assert ended.returncode == 75
