"""PostgreSQL from Debian: a cluster of the tests' own, on a socket in a temporary folder and no port."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.tables import metadata
from pacs_ai.processes import die_with_parent
from tests.peers import missing

_TEMPLATE = "migrated"


@dataclass
class Cluster:
    """A running server and its ledgers, which tests lend and give back empty."""

    socket: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _free: list[str] = field(default_factory=list)
    _lent: list[str] = field(default_factory=list)

    def url(self, database: str) -> str:
        """Return the ledger's URL of a database."""
        return f"postgresql+psycopg://pacsai@/{database}?host={self.socket}"

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the server's administrator; return the rows of the last."""
        with psycopg.connect(
            host=str(self.socket), user="pacsai", dbname=database, autocommit=True
        ) as connection:
            ran = connection.execute(statement)  # type: ignore[arg-type]
            return ran.fetchall() if ran.description else []

    def empty_database(self) -> str:
        """Make a database without a table; return its name."""
        name = f"empty{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def lend_ledger(self) -> str:
        """Return the name of a migrated database that is empty."""
        if self._free:
            name = self._free.pop()
        else:
            name = f"ledger{next(self._numbers)}"
            self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        self._lent.append(name)
        return name

    def connections(self, database: str) -> int:
        """Return how many connections to a database are open."""
        ((number,),) = self.execute(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608 - ours
        )
        assert isinstance(number, int)
        return number

    def cut_off(self, database: str) -> None:
        """End every connection to a database, as an administrator may."""
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        )

    @contextmanager
    def away(self, database: str) -> Iterator[None]:
        """Let nobody connect to a database for the length of the block."""
        self.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        self.cut_off(database)
        try:
            yield
        finally:
            self.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    @contextmanager
    def set(self, name: str, value: str) -> Iterator[None]:
        """Run the whole server with another setting than ``on`` for the length of the block."""
        self._alter(f"SET {name} = {value}", name, value)
        try:
            yield
        finally:
            self._alter(f"RESET {name}", name, "on")

    def _alter(self, statement: str, name: str, expected: str) -> None:
        self.execute(f"ALTER SYSTEM {statement}")
        self.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while self.execute(f"SHOW {name}") != [(expected,)]:
            assert time.monotonic() < deadline, f"{name} did not become {expected}"
            time.sleep(0.01)

    def take_back(self) -> None:
        """Empty what was lent: copying a database anew would cost a thousand files."""
        tables = ", ".join(metadata.tables)
        for name in self._lent:
            self.cut_off(name)
            self.execute(f"TRUNCATE {tables} RESTART IDENTITY", database=name)
        self._free += self._lent
        self._lent.clear()


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a server for the length of the block."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path may have about 100 bytes
    account: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root: the package brings an account
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    made = [programs / "initdb", "-D", folder / "data", "-U", "pacsai", "-A", "trust"]
    try:
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, **account)  # type: ignore[call-overload]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # type: ignore[call-overload]
                [
                    *(programs / "postgres", "-D", folder / "data", "-k", folder),
                    *("-c", "listen_addresses="),
                ],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
                **account,
            )
        try:
            cluster = Cluster(folder)
            _wait(cluster, process, folder / "log")
            yield cluster
        finally:
            process.send_signal(signal.SIGQUIT)  # its data is thrown away: no last checkpoint
            process.wait(30)
    finally:
        shutil.rmtree(folder)


def add_template(cluster: Cluster) -> None:
    """Make the migrated database that every ledger is a copy of."""
    cluster.execute(f"CREATE DATABASE {_TEMPLATE}")
    database = Database(cluster.url(_TEMPLATE))
    database.upgrade()
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM installation")  # every ledger gets its own
    database.close()


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        missing("PostgreSQL's initdb")
    return found[-1].parent


def _wait(cluster: Cluster, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            cluster.execute("SELECT 1")
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"PostgreSQL does not answer: {log.read_text()[-2000:]}")
