"""The database: migrations equal the tables, settings that durability needs are on."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from pacs_ai.errors import PacsAiError
from pacs_ai.ledger.engine import Database, LedgerBusyError
from pacs_ai.ledger.tables import metadata


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    made.upgrade()
    return made


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


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0)],
)
def test_sqlite_runs_with_the_settings_that_durability_needs(
    database: Database, pragma: str, value: object
) -> None:
    with database.read() as connection:
        assert connection.execute(text(f"pragma {pragma}")).scalar() == value


def test_a_writer_that_cannot_begin_says_busy_and_not_more(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.upgrade()
    with database.write() as holder:
        holder.execute(text("delete from switches"))
        with database.engine.connect().execution_options(writes=True) as other:
            other.connection.driver_connection.execute("pragma busy_timeout=50")  # type: ignore[union-attr]
        with pytest.raises(LedgerBusyError), database.write():
            pass
    database.close()


def test_another_database_than_sqlite_is_refused_by_name() -> None:
    with pytest.raises(PacsAiError, match="SQLite"):
        Database("postgresql://localhost/ledger")
