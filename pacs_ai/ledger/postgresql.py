"""PostgreSQL as the ledger: for gateways of more than one host.

Every connection waits at most 5 s for a lock and 30 s for a statement, and is cut off when it idles for 60 s
inside a transaction. A server that may lose what it committed is refused, at start and at every connection
after it (``reliability.md`` §5): success told to a sender would be a promise that nobody keeps.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.string import StrDumper
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from pacs_ai.errors import PacsAiError
from pacs_ai.ledger.prepared import told

# One statement a line of `reliability.md` §5; other programs on the same server keep their own limits.
_LIMITS = (
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '30s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)
_SETTINGS = ("SET jit = off",)
"""Questions of the ledger take milliseconds; to compile one takes half a second."""
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")

OPTIONS: dict[str, dict[str, Any]] = {
    "write": {"isolation_level": "READ COMMITTED"},
    "read": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""SQLAlchemy's execution options: a reader sees one state of the database, as it does on SQLite."""


class UnsafeDatabaseError(PacsAiError):
    """The server would not keep what it says it has committed, or is reached in the open."""


class _TextDumper(StrDumper):
    """PostgreSQL's text cannot hold NUL. No DICOM text has one (PS3.5 6.1.3); a hostile one may."""

    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def engine(url: URL) -> Engine:
    """Return an engine for a server.

    Raises
    ------
    UnsafeDatabaseError
        When the URL holds a password, or leads to another host without ``sslmode=verify-full``.
    """
    _refuse_open_secrets(url)
    made = create_engine(
        url,
        hide_parameters=True,  # an error would otherwise show values, a patient's among them
        pool_size=5,
        max_overflow=11,
        pool_timeout=5,
        pool_pre_ping=True,  # a server that was started again is found before the transaction
        connect_args={
            "application_name": "pacs-ai",
            "connect_timeout": 5,
            "tcp_user_timeout": 30_000,
        },
    )

    @event.listens_for(made, "connect")
    def _configure(driver: Any, record: ConnectionPoolEntry) -> None:
        driver.adapters.register_dumper(str, _TextDumper)
        with driver.cursor() as cursor:
            for setting in (*_LIMITS, *_SETTINGS):
                cursor.execute(setting)
            for name in _DURABLE:
                cursor.execute(f"SHOW {name}")
                if cursor.fetchone() == ("off",):
                    raise UnsafeDatabaseError(
                        f"the ledger's PostgreSQL runs with {name} off and may lose what it "
                        f"committed: set {name} = on for the server, the database and the role"
                    )
        driver.commit()

    return made


def certain(connection: Connection) -> None:
    """Nothing can be asked here: a server that commits is the one that is asked next."""


class Transactions:
    """The transactions of a connection that only writes; psycopg begins each with its first statement."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._driver: Any = connection.connection.dbapi_connection

    def begin(self) -> None:
        """Nothing is asked of the server before it is needed."""

    def commit(self) -> None:
        """Commit what was written."""
        try:
            self._driver.commit()
        except psycopg.Error as error:
            raise told(self.connection, error) from error

    def certain(self) -> None:
        """Nothing can be asked here either."""


def _refuse_open_secrets(url: URL) -> None:
    if url.password is not None:
        raise UnsafeDatabaseError(
            "the ledger's URL holds a password: leave it out, and name a password file of mode "
            "0600 (?passfile=PATH)"
        )
    hosts = url.query.get("host", url.host or "")
    hosts = (hosts,) if isinstance(hosts, str) else hosts
    local = all(not host or host.startswith("/") or host in _LOCAL_HOSTS for host in hosts)
    if not local and url.query.get("sslmode") != "verify-full":
        raise UnsafeDatabaseError(
            "the ledger's PostgreSQL is on another host: add ?sslmode=verify-full&sslrootcert=PATH "
            "to its URL"
        )
