"""A connection that stays open: its transactions are begun and committed without SQLAlchemy."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Executable, event, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from pacs_ai.ledger import Ledger, arrivals, retention, tables
from pacs_ai.ledger import sqlite as sqlite_ledger
from pacs_ai.ledger.arrivals import Arrival
from pacs_ai.ledger.dialects import lock_studies
from pacs_ai.ledger.engine import LedgerBusyError, LedgerGoneError, Steady
from pacs_ai.ledger.prepared import Prepared, driver_cursor
from pacs_ai.study import Head
from tests.peers.postgresql import Cluster
from tests.unit.ledger.test_work import STUDY, _ledger

HELD = 0.1
"""Seconds for which another holds a lock."""


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    yield from opened(ledger_url)


@pytest.fixture
def server(postgresql: Cluster) -> Iterator[Ledger]:
    yield from opened(postgresql.url(postgresql.lend_ledger()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def local(file: Path) -> Iterator[Ledger]:
    yield from opened(f"sqlite:///{file}")


def opened(url: str) -> Iterator[Ledger]:
    made = _ledger(url)
    yield made
    made.close()


def record(connection: Connection, number: int, *, study: str = STUDY) -> None:
    """Record an Instance of a Study that was asked to be assembled."""
    head = Head("1.2", f"1.2.3.{number}", study, "1.2.4", "CT", "")
    arrival = Arrival(head, f"digest {number}", 1, "1.2", "modality", timedelta())
    retention.hold_files(connection, [study])
    assert arrivals.record(connection, [arrival], noted={study}).new == [True]


def count(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(tables.instances)) or 0


def assert_writes(ledger: Ledger, steady: Steady) -> None:
    before = count(ledger)
    with steady.write() as connection:
        record(connection, 1000 + before)
    assert count(ledger) == before + 1


def later(seconds: float, task: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        time.sleep(seconds)
        task()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture
def steady(ledger: Ledger) -> Iterator[Steady]:
    made = ledger.database.steady()
    yield made
    made.close()


def test_what_a_block_wrote_is_seen_by_others_when_it_ends(ledger: Ledger, steady: Steady) -> None:
    for number in range(3):
        with steady.write() as connection:
            record(connection, number)
            assert count(ledger) == number
        assert count(ledger) == number + 1


def test_to_record_an_instance_asks_nothing_of_sqlalchemy(ledger: Ledger, steady: Steady) -> None:
    with steady.write() as connection:
        record(connection, 0)
        assert not connection.in_transaction()


@pytest.mark.parametrize("before", [0, 1])
def test_a_block_that_raises_keeps_nothing_and_the_next_works(
    ledger: Ledger, steady: Steady, before: int
) -> None:
    for number in range(before):
        with steady.write() as connection:
            record(connection, number)
    with pytest.raises(ZeroDivisionError), steady.write() as connection:
        record(connection, 10)
        1 / 0  # noqa: B018
    assert count(ledger) == before
    assert_writes(ledger, steady)


def test_a_fault_of_a_statement_is_told_as_one_without_its_values(
    ledger: Ledger, steady: Steady
) -> None:
    add = Prepared(lambda _: insert(tables.switches), columns=("name", "actor"))
    with pytest.raises(IntegrityError) as raised, steady.write() as connection:
        record(connection, 10)
        for name in ("delivery", "delivery"):
            add.run(connection, {"name": name, "actor": "anna"})
    assert "anna" not in str(raised.value)
    assert count(ledger) == 0
    assert_writes(ledger, steady)


def test_sqlalchemy_takes_part_in_the_transaction_that_is_under_way(
    ledger: Ledger, steady: Steady
) -> None:
    for number in range(2):
        with steady.write() as connection:
            record(connection, number)
            connection.execute(insert(tables.switches).values(name=f"s{number}", actor="anna"))
            assert count(ledger) == number
        assert count(ledger) == number + 1
    with pytest.raises(ZeroDivisionError), steady.write() as connection:
        record(connection, 10)
        connection.execute(insert(tables.switches).values(name="s10", actor="anna"))
        1 / 0  # noqa: B018
    with ledger.database.read() as connection:
        names = connection.scalars(select(tables.switches.c.name)).all()
    assert (sorted(names), count(ledger)) == (["s0", "s1"], 2)
    assert_writes(ledger, steady)


def test_a_commit_of_sqlalchemy_that_fails_keeps_nothing(ledger: Ledger, steady: Steady) -> None:
    def fail(_: Connection) -> None:
        raise OperationalError("COMMIT", {}, OSError("no space"))

    engine = ledger.database.engine
    event.listen(engine, "commit", fail)
    with pytest.raises(LedgerBusyError), steady.write() as connection:
        record(connection, 10)
        connection.execute(text("delete from switches"))
    event.remove(engine, "commit", fail)
    with ledger.database.write() as connection:
        connection.execute(text("delete from switches"))
    assert count(ledger) == 0
    assert_writes(ledger, steady)


def test_a_connection_that_is_given_back_serves_others(ledger: Ledger, steady: Steady) -> None:
    for _ in range(3):
        assert_writes(ledger, steady)
        steady.close()
        with ledger.database.write() as connection:
            connection.execute(text("delete from switches"))
        with ledger.database.read() as connection:
            connection.execute(text("select 1"))


# ---------------------------------------------------------------------- SQLite


def holder_of(file: Path) -> sqlite3.Connection:
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.mark.parametrize("before", [0, 1])
def test_a_file_that_another_holds_for_too_long_says_busy_and_is_written_after_it(
    local: Ledger, file: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "_PATIENCE", 0.05)
    steady = local.database.steady()
    for _ in range(before):
        assert_writes(local, steady)
    with closing(holder_of(file)):
        for _ in range(2):
            with pytest.raises(LedgerBusyError), steady.write():
                pass
    assert_writes(local, steady)
    steady.close()


@pytest.mark.parametrize("before", [0, 1])
def test_a_file_that_another_lets_go_in_time_is_waited_for(
    local: Ledger, file: Path, before: int
) -> None:
    steady = local.database.steady()
    for _ in range(before):
        assert_writes(local, steady)
    with closing(holder_of(file)) as other:
        release = later(HELD, other.rollback)
        with steady.write() as connection:
            record(connection, 10)
        release.join()
    assert count(local) == before + 1
    steady.close()


def test_a_commit_waits_for_readers_where_there_is_no_wal(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [one for one in sqlite_ledger._PRAGMAS if "WAL" not in one]
    monkeypatch.setattr(sqlite_ledger, "_PRAGMAS", others)
    for ledger in opened(f"sqlite:///{file}"):
        steady = ledger.database.steady()
        with closing(sqlite3.connect(file, check_same_thread=False)) as reader:
            assert reader.execute("pragma journal_mode").fetchone() == ("delete",)
            with steady.write() as connection:
                record(connection, 10)
                reader.execute("begin")
                reader.execute("select * from instances").fetchall()
                release = later(HELD, reader.rollback)
            release.join()
        assert count(ledger) == 1
        steady.close()


@pytest.mark.parametrize("takes_part", [text("select 1"), None])
def test_a_commit_that_sqlite_refuses_keeps_nothing(
    local: Ledger, takes_part: Executable | None
) -> None:
    steady = local.database.steady()
    with pytest.raises(IntegrityError), steady.write() as connection:
        record(connection, 10)
        if takes_part is not None:
            connection.execute(takes_part)
        cursor = driver_cursor(connection)
        cursor.execute("PRAGMA defer_foreign_keys=ON")
        cursor.execute("INSERT INTO version_jobs VALUES ('no version', 'no job', 0)")
    with local.database.write() as connection:
        connection.execute(text("delete from switches"))
    assert count(local) == 0
    assert_writes(local, steady)
    steady.close()


def pragma(connection: Connection, name: str) -> object:
    return driver_cursor(connection).execute(f"pragma {name}").fetchone()[0]


@pytest.mark.parametrize(
    ("name", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
def test_its_transactions_are_as_durable_as_others(local: Ledger, name: str, value: object) -> None:
    steady = local.database.steady()
    for _ in range(2):
        with steady.write() as connection:
            assert pragma(connection, name) == value
    steady.close()


def test_only_its_own_transactions_do_without_sqlites_waiting(local: Ledger) -> None:
    usual = sqlite_ledger._PATIENCE * 1000
    steady = local.database.steady()
    for _ in range(2):
        with steady.write() as connection:
            assert pragma(connection, "busy_timeout") == 0
            connection.execute(text("select 1"))
            assert pragma(connection, "busy_timeout") == usual  # SQLAlchemy will commit
    with steady.write() as connection:
        assert pragma(connection, "busy_timeout") == 0
        driver = connection.connection.dbapi_connection
    steady.close()
    for lend in (local.database.read, local.database.write):
        with lend() as connection:
            assert connection.connection.dbapi_connection is driver
            assert pragma(connection, "busy_timeout") == usual


@pytest.mark.parametrize("before", [0, 1])
def test_a_file_that_goes_during_the_block_says_gone_until_it_is_back(
    local: Ledger, file: Path, before: int
) -> None:
    steady = local.database.steady()
    for _ in range(before):
        assert_writes(local, steady)
    copy = file.with_name("copy")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with pytest.raises(LedgerGoneError), steady.write() as connection:
        record(connection, 10)
        for one in file.parent.glob(f"{file.name}*"):
            one.unlink()
    with pytest.raises(LedgerGoneError), steady.write():
        pytest.fail("there is nothing to write to")
    copy.rename(file)
    assert count(local) == before
    assert_writes(local, steady)
    steady.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_file_that_goes_beside_a_statement_says_gone(
    local: Ledger, file: Path, statement: str
) -> None:
    steady = local.database.steady()
    with steady.write() as connection:
        driver = connection.connection.dbapi_connection

    def vanish(run: str) -> None:
        if run == statement:
            file.unlink(missing_ok=True)

    driver.set_trace_callback(vanish)  # type: ignore[union-attr]
    with pytest.raises(LedgerGoneError), steady.write() as connection:
        record(connection, 10)


# ---------------------------------------------------------------------- PostgreSQL


def test_a_study_that_another_holds_for_too_long_says_busy_and_is_written_after_it(
    server: Ledger,
) -> None:
    steady = server.database.steady()
    with server.database.write() as holder:
        lock_studies(holder, [STUDY])
        with pytest.raises(LedgerBusyError), steady.write() as connection:
            driver_cursor(connection).execute("SET LOCAL lock_timeout = '50ms'")
            record(connection, 10)
    assert_writes(server, steady)
    steady.close()


def test_a_connection_that_is_cut_off_before_a_statement_says_busy_and_the_next_works(
    server: Ledger, postgresql: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    for lend in (server.database.steady().write, server.database.write):
        with pytest.raises(LedgerBusyError), lend() as connection:
            lock_studies(connection, [STUDY])
            postgresql.cut_off(str(server.database.engine.url.database))
            lock_studies(connection, ["1.2.3.99"])
        with lend() as connection:
            record(connection, count(server))
    assert count(server) == 2
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_a_connection_that_is_cut_off_before_its_commit_says_busy_and_the_next_works(
    server: Ledger, postgresql: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    steady = server.database.steady()
    with pytest.raises(LedgerBusyError), steady.write() as connection:
        record(connection, 10)
        postgresql.cut_off(str(server.database.engine.url.database))
    assert count(server) == 0
    assert_writes(server, steady)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
    steady.close()


def test_its_locks_end_with_the_block(server: Ledger) -> None:
    steady = server.database.steady()
    for _ in range(2):
        with steady.write() as connection:
            lock_studies(connection, [STUDY])
        with pytest.raises(ZeroDivisionError), steady.write() as connection:
            lock_studies(connection, [STUDY])
            1 / 0  # noqa: B018
        with server.database.write() as connection:
            connection.execute(text("set local lock_timeout = '50ms'"))
            lock_studies(connection, [STUDY])
    steady.close()


def test_a_connection_that_gives_no_cursor_is_told_as_a_busy_ledger(server: Ledger) -> None:
    steady = server.database.steady()
    with pytest.raises(LedgerBusyError), steady.write() as connection:
        cast("Any", connection.connection.dbapi_connection).close()
        record(connection, 1)
    assert_writes(server, steady)
    steady.close()
