"""The database: migrations equal the tables, settings that durability needs are on."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import ProgrammingError

from pacs_ai.errors import PacsAiError
from pacs_ai.ledger import Ledger, engine, tables
from pacs_ai.ledger.clock import host_time
from pacs_ai.ledger.dialects import lock_studies
from pacs_ai.ledger.engine import Database, LedgerBusyError, migrations
from pacs_ai.ledger.postgresql import UnsafeDatabaseError
from pacs_ai.ledger.tables import metadata
from pacs_ai.settings import WorkTimes
from tests.peers.postgresql import Cluster


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    made = Database(ledger_url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def server(postgresql: Cluster) -> Iterator[Database]:
    made = Database(postgresql.url(postgresql.lend_ledger()))
    yield made
    made.close()


def test_migrations_make_exactly_the_tables_of_the_metadata(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_an_upgrade_of_an_upgraded_ledger_changes_nothing(database: Database) -> None:
    with database.read() as connection:
        first = connection.execute(text("select id from installation")).all()
    database.upgrade()
    with database.read() as connection:
        assert connection.execute(text("select id from installation")).all() == first
    assert len(first) == 1


def _upgrade(url: str) -> None:
    database = Database(url)
    database.upgrade()
    database.close()


def test_processes_that_start_together_migrate_once(postgresql: Cluster) -> None:
    url = postgresql.url(postgresql.empty_database())
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_upgrade, args=(url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    database = Database(url)
    with database.read() as connection:
        assert len(connection.execute(text("select id from installation")).all()) == 1
    database.close()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_ledger_of_the_first_version_keeps_its_events_and_seals_them(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    if backend == "postgresql":
        cluster = request.getfixturevalue("postgresql")
        url = cluster.url(cluster.empty_database())
    ledger = Ledger(url, WorkTimes())
    with ledger.database.write() as connection:
        command.upgrade(migrations(connection), "0001")
        connection.execute(text(_EVENT_OF_THE_FIRST_VERSION))
    ledger.database.upgrade()
    assert ledger.verify_events().unsealed == 1
    assert ledger.seal_events() == 1
    verdict = ledger.verify_events()
    assert (verdict.sealed, verdict.broken) == (1, None)
    ledger.close()


_EVENT_OF_THE_FIRST_VERSION = """
    INSERT INTO events (at, kind, actor, reason, detail)
    VALUES ('2026-03-01 08:00:00.000001', 'routing paused', 'anna', '', '{}')
"""


def test_a_role_that_may_only_read_and_write_rows_is_enough(postgresql: Cluster) -> None:
    name = postgresql.lend_ledger()
    owner = Ledger(postgresql.url(name), WorkTimes())
    owner.database.upgrade()
    postgresql.execute(
        "CREATE ROLE clerk LOGIN; "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk; "
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk",
        database=name,
    )
    try:
        clerk = Ledger(postgresql.url(name).replace("pacsai@", "clerk@"), WorkTimes())
        clerk.database.upgrade()
        clerk.set_switch("routing", actor="anna", paused=True)
        assert clerk.seal_events() == 1
        with pytest.raises(ProgrammingError), clerk.database.write() as connection:
            connection.execute(text("DROP TABLE switches"))
        clerk.close()
    finally:
        postgresql.execute("DROP OWNED BY clerk; DROP ROLE clerk", database=name)
        owner.close()


def test_an_instance_may_be_larger_than_two_gibibytes(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            insert(tables.studies).values(
                study_instance_uid="1.2",
                peer="p",
                accession_number="",
                first_at=host_time(),
                last_at=host_time(),
            )
        )
        connection.execute(_object("1.2.3", size=4 * 2**30))
    with database.read() as connection:
        assert connection.scalar(select(tables.objects.c.size)) == 4 * 2**30


def _object(uid: str, *, size: int) -> object:
    return insert(tables.objects).values(
        sop_instance_uid=uid,
        sop_class_uid="1.2",
        study_instance_uid="1.2",
        series_instance_uid="1.2",
        transfer_syntax_uid="1.2",
        kind="capture",
        volumetric=False,
        subject="s",
        digest="d",
        size=size,
        made_at=host_time(),
    )


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    with database.read() as reader:
        assert _switches(reader) == 0
        with database.write() as writer:
            writer.execute(insert(tables.switches).values(name="delivery", actor="anna"))
        assert _switches(reader) == 0
    with database.read() as reader:
        assert _switches(reader) == 1


def _switches(connection: Connection) -> int:
    return len(connection.execute(select(tables.switches)).all())


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0)],
)
def test_sqlite_runs_with_the_settings_that_durability_needs(
    sqlite: Database, pragma: str, value: object
) -> None:
    with sqlite.read() as connection:
        assert connection.execute(text(f"pragma {pragma}")).scalar() == value


def test_a_writer_that_cannot_begin_says_busy_and_not_more(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_ai.ledger.sqlite._PATIENCE", 0.05)
    with sqlite.write() as holder:
        holder.execute(text("delete from switches"))
        with pytest.raises(LedgerBusyError), sqlite.write():
            pass


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lock_timeout", "5s"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("transaction_isolation", "read committed"),
    ],
)
def test_postgresql_waits_no_longer_than_the_rules_say(
    server: Database, setting: str, value: str
) -> None:
    with server.write() as connection:
        assert connection.execute(text(f"show {setting}")).scalar() == value


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_server_that_may_lose_what_it_committed_is_refused(
    server: Database, postgresql: Cluster, setting: str
) -> None:
    with postgresql.set(setting, "off"), pytest.raises(UnsafeDatabaseError, match=setting):
        server.upgrade()
    server.upgrade()


def test_a_lock_that_does_not_come_says_busy(server: Database) -> None:
    with server.write() as holder:
        holder.execute(text("lock table switches"))
        with pytest.raises(LedgerBusyError), server.write() as connection:
            connection.execute(text("set local lock_timeout = '50ms'"))
            connection.execute(text("delete from switches"))


def test_the_advisory_locks_of_studies_end_with_the_patience_for_locks(server: Database) -> None:
    with server.write() as holder:
        lock_studies(holder, ["1.2"])
        with pytest.raises(LedgerBusyError), server.write() as connection:
            connection.execute(text("set local lock_timeout = '50ms'"))
            lock_studies(connection, ["1.2"])


def test_a_connection_that_was_cut_off_says_busy_and_the_next_one_works(
    server: Database, postgresql: Cluster
) -> None:
    with pytest.raises(LedgerBusyError), server.write() as connection:
        postgresql.cut_off(str(connection.scalar(text("select current_database()"))))
        connection.execute(text("delete from switches"))
    with server.write() as connection:
        connection.execute(text("delete from switches"))


def test_a_connection_that_stays_open_keeps_nothing_of_a_block_that_raises(
    database: Database,
) -> None:
    steady = database.steady()
    counted = text("select count(*) from switches")
    with steady.write() as connection:
        connection.execute(insert(tables.switches).values(name="a", actor="test"))
    with pytest.raises(ZeroDivisionError), steady.write() as connection:
        connection.execute(insert(tables.switches).values(name="b", actor="test"))
        1 / 0  # noqa: B018
    with steady.write() as connection:
        assert connection.scalar(counted) == 1
    steady.close()


def test_a_connection_that_stays_open_is_opened_anew_when_it_was_cut_off(
    server: Database, postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = server.steady()
    with steady.write() as connection:
        name = str(connection.scalar(text("select current_database()")))
    postgresql.cut_off(name)
    with pytest.raises(LedgerBusyError), steady.write() as connection:
        connection.execute(text("select 1"))
    with steady.write() as connection:
        assert connection.scalar(text("select 1")) == 1
    postgresql.cut_off(name)
    monkeypatch.setattr(engine, "_PAUSE", 0.0)  # after a pause nobody meets the old one
    with steady.write() as connection:
        assert connection.scalar(text("select 1")) == 1
    steady.close()


def test_a_server_that_is_away_says_busy(tmp_path: Path) -> None:
    database = Database(f"postgresql+psycopg://nobody@/ledger?host={tmp_path}")
    before = time.monotonic()
    for look in (database.read, database.write):
        with pytest.raises(LedgerBusyError), look():
            pass
    assert time.monotonic() - before < 10


def test_text_that_postgresql_cannot_hold_is_marked_and_kept(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(tables.switches).values(name="delivery", actor="an\0na"))
    with database.read() as connection:
        assert connection.scalar(select(tables.switches.c.actor)) in ("an\0na", "an\ufffdna")


@pytest.mark.parametrize("url", ["mysql://localhost/ledger", "postgresql://localhost/ledger", "?"])
def test_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(PacsAiError, match="SQLite or PostgreSQL"):
        Database(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://pacsai@db.example/ledger",
        "postgresql+psycopg://pacsai@db.example/ledger?sslmode=require",
        "postgresql+psycopg://pacsai@/ledger?host=db.example",
    ],
)
def test_another_host_is_reached_by_verified_tls_only(url: str) -> None:
    with pytest.raises(UnsafeDatabaseError, match="verify-full"):
        Database(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UnsafeDatabaseError, match="passfile") as raised:
        Database("postgresql+psycopg://pacsai:sesame@localhost/ledger")
    assert "sesame" not in str(raised.value)
