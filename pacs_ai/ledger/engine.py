"""Connections to the ledger's database and its migrations.

SQLite: WAL, ``synchronous=FULL``, foreign keys on, and every writing transaction begins with
``BEGIN IMMEDIATE`` so that two writers wait for each other instead of failing (``reliability.md`` §5).
Engines are made after a fork, never at import.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.errors import PacsAiError, TransientError
from pacs_ai.ledger import tables

_PRAGMAS = (
    "PRAGMA busy_timeout=10000",  # first: the others may have to wait too
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)


class LedgerBusyError(TransientError):
    """The ledger's database did not answer in time."""


class LedgerUnusableError(PacsAiError):
    """The ledger's file is not one that this version can work with."""


class Database:
    """The ledger's database: transactions to write in, connections to read from.

    Parameters
    ----------
    url : str
        SQLAlchemy URL; only SQLite is proven so far.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            raise PacsAiError(
                "the ledger is SQLite for now: leave `ledger` out, or use sqlite:///PATH"
            )
        if parsed.database:
            file = Path(parsed.database)
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file.touch(mode=0o600)  # Workitems name patients; SQLite's own files take this mode
        self.engine = _engine(url)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open one short transaction that writes; nothing is kept when the block raises.

        Raises
        ------
        LedgerBusyError
            When the database is locked or gone.
        """
        try:
            with (
                self.engine.connect().execution_options(writes=True) as connection,
                connection.begin(),
            ):
                yield connection
        except DatabaseError as error:
            if (told := _ours(error)) is None:
                raise
            raise told from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database.

        Raises
        ------
        LedgerBusyError
            When the database is locked or gone.
        """
        try:
            with self.engine.connect() as connection, connection.begin():
                yield connection
        except DatabaseError as error:
            if (told := _ours(error)) is None:
                raise
            raise told from error

    def upgrade(self) -> None:
        """Bring the schema to this version's and give a new installation its id.

        Raises
        ------
        LedgerUnusableError
            When the file is no ledger, or a later version of the gateway made it.
        """
        with self.write() as connection:
            _judge(connection)
            command.upgrade(migrations(connection), "head")
            if connection.scalar(select(tables.installation.c.id)) is None:
                connection.execute(insert(tables.installation).values(id=str(uuid.uuid4())))

    def verify(self) -> None:
        """Look whether this version can work with the ledger; nothing is changed.

        Raises
        ------
        LedgerUnusableError
            When the file is no ledger, or a later version of the gateway made it.
        """
        with self.read() as connection:
            _judge(connection)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def migrations(connection: Connection) -> Config:
    """Return Alembic's configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", str(files("pacs_ai.ledger") / "migrations"))
    config.attributes["connection"] = connection
    return config


def _ours(error: DatabaseError) -> PacsAiError | None:
    """Return the error of ours for one of the database, or None for a fault of a statement."""
    if isinstance(error, OperationalError):
        return LedgerBusyError("the ledger's database is busy or gone")
    if type(error) is DatabaseError:  # SQLite's word for a file that is damaged or no database
        return LedgerUnusableError(
            "the ledger's file is damaged or no database: restore it from its backup"
        )
    return None


def _judge(connection: Connection) -> None:
    found = MigrationContext.configure(connection).get_current_heads()
    known = {
        one.revision for one in ScriptDirectory.from_config(migrations(connection)).walk_revisions()
    }
    if not set(found) <= known:
        raise LedgerUnusableError(
            "a later version of the gateway made the ledger: install that version, "
            "or restore the ledger from before the upgrade"
        )


def _engine(url: str) -> Engine:
    # An error of the database would otherwise show the values of its statement, a patient's among them.
    engine = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(driver: Any, record: ConnectionPoolEntry) -> None:
        driver.isolation_level = None  # the driver must not begin by itself
        cursor = driver.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
