"""Connections to the ledger's database and its migrations.

What is special about SQLite and PostgreSQL stands in :mod:`pacs_ai.ledger.sqlite` and
:mod:`pacs_ai.ledger.postgresql`. Engines are made after a fork, never at import.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import files
from typing import Any, NoReturn, Protocol

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pacs_ai.errors import PacsAiError, TransientError
from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import clock_of, give_back_clock, take_clock
from pacs_ai.ledger.dialects import lock_schema

_PAUSE = 1.0
"""Seconds after which a connection that was not used is not trusted."""

_BUSY = (OperationalError, InternalError, PoolTimeoutError)
"""Locked, timed out, cut off, gone: what may be otherwise in a moment."""

_TOLD = (*_BUSY, DatabaseError)
"""What is told as an error of the ledger, unless a statement is at fault."""

EARLIER = (
    "its schema is of an earlier version: back it up, then start the gateway, which brings it up"
)
"""What is said where nobody may bring it up, because nobody is known to have backed it up."""

_RIGHTS = "cannot be opened or written: change the owner or mode of it and its folder"
_REFUSED = {
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_IOERR: "cannot be read or written: look at its disk and the kernel's log",
    sqlite3.SQLITE_FULL: "has no room to grow: make room on its disk",
}
"""What SQLite says where to wait does not help, and what a person does then."""

DRIVERS = {
    "sqlite": "pacs_ai.ledger.sqlite",
    "sqlite+pysqlite": "pacs_ai.ledger.sqlite",
    "postgresql+psycopg": "pacs_ai.ledger.postgresql",
}
"""What knows each kind of database; imported on use, so that SQLite asks for no other's library."""


_Certain = Callable[[Connection], None]
"""Asked after each commit whether the database is still the one that others will find."""


class _Transactions(Protocol):
    """The transactions of a connection that only writes, begun and committed by the driver.

    SQLAlchemy's way to begin and to commit costs more than the statements that an Instance needs. What fails
    is SQLAlchemy's error all the same, and to close the connection rolls back.
    """

    connection: Connection

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def certain(self) -> None: ...


class LedgerBusyError(TransientError):
    """The ledger's database did not answer in time."""


class LedgerGoneError(LedgerBusyError):
    """The ledger's file was removed or replaced while the gateway runs."""


class LedgerRefusedError(LedgerBusyError):
    """The disk, or the rights of this user, do not let the ledger's file be used."""


class LedgerUnusableError(PacsAiError):
    """The ledger is not one that this version can work with."""


class Database:
    """The ledger's database: transactions to write in, connections to read from.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/NAME``.

    Raises
    ------
    PacsAiError
        When it is another database, or one that is not safe to use.
    """

    def __init__(self, url: str) -> None:
        place = parsed(url)
        driver = import_module(DRIVERS[place.drivername])
        self.engine: Engine = driver.engine(place)
        options: dict[str, dict[str, Any]] = driver.OPTIONS
        self._certain: _Certain = driver.certain
        self._transactions: Callable[[Connection], _Transactions] = driver.Transactions
        self._writing = self.engine.execution_options(**options["write"])
        self._reading = self.engine.execution_options(**options["read"])

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open one short transaction that writes; nothing is kept when the block raises.

        Raises
        ------
        LedgerBusyError
            When the database is locked or gone.
        """
        with _transaction(self._writing, self._certain) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that sees one state of the database.

        Raises
        ------
        LedgerBusyError
            When the database is locked or gone.
        """
        with _transaction(self._reading, self._certain) as connection:
            yield connection

    def steady(self) -> Steady:
        """Return a connection to write with that stays open between its transactions."""
        return Steady(self._writing, self._transactions)

    def upgrade(self) -> None:
        """Bring the schema to this version's and give a new installation its id.

        Nothing is written when both are there: a role without the right to change the schema will do.

        Raises
        ------
        LedgerUnusableError
            When it is no ledger, or a later version of the gateway made it.
        """
        with self.read() as connection:
            if _is_current(connection):
                return
        with self.write() as connection:
            lock_schema(connection)
            command.upgrade(migrations(connection), "head")
            if connection.scalar(select(tables.installation.c.id)) is None:
                connection.execute(insert(tables.installation).values(id=str(uuid.uuid4())))

    def verify(self) -> bool:
        """Look whether this version can work with the ledger; False when it must upgrade it first.

        Nothing is changed.

        Raises
        ------
        LedgerUnusableError
            When it is no ledger, or a later version of the gateway made it.
        """
        with self.read() as connection:
            return _is_current(connection)

    def is_empty(self) -> bool:
        """Tell whether no gateway has made anything here yet."""
        with self.read() as connection:
            return not inspect(connection).has_table("studies")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def parsed(url: str) -> URL:
    """Read the URL of a ledger.

    Raises
    ------
    PacsAiError
        When it is of another database, or no URL.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        found = None  # the library's text would repeat the URL
    if found is None or found.drivername not in DRIVERS:
        raise PacsAiError(
            "the ledger is SQLite or PostgreSQL: leave `ledger` out, or use sqlite:///PATH or "
            "postgresql+psycopg://USER@HOST/NAME"
        )
    return found


class Steady:
    """A connection that stays open between its transactions; one thread at a time may write with it.

    To open one costs as much as the statements of a small transaction. After an error, or a pause in which
    the server may have been started again, another is opened.
    """

    def __init__(self, engine: Engine, opened: Callable[[Connection], _Transactions]) -> None:
        self._engine = engine
        self._opened = opened
        self._open: _Transactions | None = None
        self._used = 0.0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open one short transaction, as :meth:`Database.write` does.

        SQLAlchemy takes part in it with its first statement, when there is one.
        """
        transactions, self._open = self._open, None
        try:
            if transactions is not None and time.monotonic() - self._used > _PAUSE:
                transactions.connection.close()
                transactions = None
            transactions = transactions or self._opened(self._engine.connect())
            connection = transactions.connection
            clock = take_clock(connection)
            try:
                transactions.begin()
                yield connection
                if connection.in_transaction():
                    connection.commit()
                else:
                    transactions.commit()
                transactions.certain()
            except BaseException:
                _give_up(connection)
                raise
            finally:
                give_back_clock(clock)
        except _TOLD as error:
            _tell(error)
        self._open, self._used = transactions, time.monotonic()

    def close(self) -> None:
        """Give the connection back."""
        if self._open is not None:
            self._open.connection.close()
            self._open = None


def migrations(connection: Connection) -> Config:
    """Return Alembic's configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", str(files("pacs_ai.ledger") / "migrations"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _transaction(engine: Engine, certain: _Certain) -> Iterator[Connection]:
    with _errors_told(), engine.connect() as connection:
        with connection.begin(), clock_of(connection):
            yield connection
        certain(connection)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except _TOLD as error:
        _tell(error)


def _give_up(connection: Connection) -> None:
    try:
        connection.rollback()
    finally:
        # After a commit that failed SQLAlchemy takes its transaction for ended, and closes a connection that
        # has one without rolling back. It has none now, so that the pool does.
        connection.close()


def _tell(error: Exception) -> NoReturn:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    if code in _REFUSED:
        raise LedgerRefusedError(f"the ledger's file {_REFUSED[code]}") from error
    if isinstance(error, _BUSY):
        raise LedgerBusyError("the ledger's database is busy or gone") from error
    if type(error) is not DatabaseError:
        raise error  # a fault of a statement
    # SQLite's word for a file that is damaged or no database.
    raise LedgerUnusableError(
        "the ledger's file is damaged or no database: restore it from its backup"
    ) from error


def _is_current(connection: Connection) -> bool:
    scripts = ScriptDirectory.from_config(migrations(connection))
    found = set(MigrationContext.configure(connection).get_current_heads())
    if not found <= {one.revision for one in scripts.walk_revisions()}:
        raise LedgerUnusableError(
            "a later version of the gateway made the ledger: install that version, "
            "or restore the ledger from before the upgrade"
        )
    if found != set(scripts.get_heads()):
        return False
    return connection.scalar(select(tables.installation.c.id)) is not None
