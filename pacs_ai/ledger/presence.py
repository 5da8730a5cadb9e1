"""The one door to the ledger of settings: neither it nor the spool is made anew where one was lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from pacs_ai.errors import SpoolError
from pacs_ai.ledger import Ledger, tables
from pacs_ai.ledger.engine import EARLIER, Database, LedgerUnusableError, parsed
from pacs_ai.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger, which is made or brought to this version's schema first.

    Raises
    ------
    LedgerUnusableError
        When its file was lost, it is no ledger, or a later version of the gateway made it.
    LedgerBusyError
        When the database is locked or gone.
    """
    refuse_lost(settings)
    ledger = Ledger(settings.ledger_url, settings.work)
    with _closed_if_refused(ledger.database):
        refuse_emptied(settings, ledger.database)
        ledger.database.upgrade()
    return ledger


def open_database(settings: Settings) -> Database:
    """Open the ledger's database alone, as :func:`found_ledger` does; one that is not there yet is made."""
    refuse_lost(settings)
    database = Database(settings.ledger_url)
    with _closed_if_refused(database):
        refuse_emptied(settings, database)
        if database.is_empty():
            database.upgrade()
        _refuse_earlier(database)
    return database


def found_ledger(settings: Settings) -> Ledger:
    """Open the ledger of a gateway that has run; none is made, and none is brought to another schema.

    Raises
    ------
    LedgerUnusableError
        When there is none, or it is of an earlier version: who asks must not change what a gateway of that
        version works with, and nobody has backed it up.
    """
    refuse_absent(settings)
    ledger = Ledger(settings.ledger_url, settings.work)
    with _closed_if_refused(ledger.database):
        _refuse_earlier(ledger.database)
    return ledger


def found_database(settings: Settings) -> Database:
    """Open the database of a gateway that has run, as :func:`found_ledger` does."""
    refuse_absent(settings)
    database = Database(settings.ledger_url)
    with _closed_if_refused(database):
        _refuse_earlier(database)
    return database


@contextmanager
def _closed_if_refused(database: Database) -> Iterator[None]:
    try:
        yield
    except BaseException:
        database.close()
        raise


def _refuse_earlier(database: Database) -> None:
    if database.is_empty():
        raise LedgerUnusableError(
            "no gateway has run with these settings (the ledger's database has no tables): name the settings "
            "of the one that is meant with --config, or start it first"
        )
    if not database.verify():
        raise LedgerUnusableError(f"the ledger: {EARLIER}")


def is_there(settings: Settings) -> bool:
    """Tell whether there is a ledger to look into; nothing is made, as by opening one that is not there.

    A server is taken to have one: only it can tell.

    Raises
    ------
    PacsAiError
        When ``ledger`` names no database that can be one.
    """
    file = _file(settings)
    return file is None or file.exists()


def refuse_lost(settings: Settings) -> None:
    """Refuse to begin with an empty ledger beside a spool that holds what was acknowledged.

    Raises
    ------
    LedgerUnusableError
        When the file is gone and Instances are there.
    PacsAiError
        When ``ledger`` names no database that can be one.
    """
    if not is_there(settings):
        _refuse_beside_instances(settings, "file is gone")


def refuse_emptied(settings: Settings, database: Database) -> None:
    """Refuse, as :func:`refuse_lost` does, a database without tables: another's, or one made anew."""
    if database.is_empty():
        _refuse_beside_instances(settings, "database has no tables")


def _refuse_beside_instances(settings: Settings, what: str) -> None:
    if any((settings.spool_path / "instances").glob("*/*.dcm")):
        raise LedgerUnusableError(
            f"the ledger's {what}, and the spool holds Instances that it knew: put its backup back, or "
            f"correct `ledger`; to begin with nothing, move {settings.spool_path} away too"
        )


def refuse_absent(settings: Settings) -> None:
    """Refuse to ask or steer a gateway that has never run: mostly another one is meant.

    Raises
    ------
    LedgerUnusableError
        When there is no ledger.
    """
    refuse_lost(settings)
    if not is_there(settings):
        raise LedgerUnusableError(
            f"no gateway has run with these settings ({_file(settings)} is not there): name the settings "
            "of the one that is meant with --config, or start it first"
        )


def refuse_lost_spool(settings: Settings, database: Database) -> None:
    """Refuse to begin with an empty spool beside a ledger that knows what was acknowledged.

    Raises
    ------
    SpoolError
        When the folder is gone, as where its disk is not mounted, and Instances were in it.
    """
    folder = settings.spool_path / "instances"
    if folder.is_dir():
        return
    held = tables.instances.c
    with database.read() as connection:
        known = connection.scalar(select(held.id).where(held.removed_at.is_(None)).limit(1))
    if known is not None:
        raise SpoolError(
            f"{folder} is gone, and the ledger knows Instances that it held: mount its disk or put its "
            "backup back; to go on without what it held, make the folder"
        )


def is_open_to_others(settings: Settings) -> bool:
    """Tell whether other users of this machine can read the ledger, as after a copy was put back."""
    file = _file(settings)
    if file is None or not file.exists():
        return False
    return all(one.stat().st_mode & 0o077 for one in (file, file.parent))


def _file(settings: Settings) -> Path | None:
    """Return where SQLite keeps the ledger, or None when it is on a server or in memory."""
    url = parsed(settings.ledger_url)
    if not url.drivername.startswith("sqlite") or not url.database:
        return None
    return Path(url.database)
