"""What ``status`` and ``check`` say of the disk: what is free, what is kept, what retention can free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer

from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.presence import found_database
from pacs_ai.ledger.retention import Removal
from pacs_ai.retention import Holdings, Outlook, holdings, remove_strays, strays
from pacs_ai.settings import Settings
from pacs_ai.spool import FOLDERS, Disk, Spool, disk_of

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def existing(folder: Path) -> Path:
    """Return a folder, or the one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def size(number: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"


def problems(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the spool's disk, each with what to do."""
    try:
        found = disk_of(existing(settings.spool_path))
    except OSError:
        yield "the spool's disk does not answer: look at its mount and the kernel's log"
        return
    watermark = settings.listener.watermark(found.total)
    if found.free < watermark:
        yield (
            f"{size(found.free)} free, less than the {size(watermark)} below which "
            "every Instance is refused: make room, keep less (retention), or set "
            "listener.minimum_free"
        )


def report(settings: Settings, database: Database) -> dict[str, Any]:
    """Return bytes that are free, kept, and what retention can free and when, for programs."""
    disk = disk_of(existing(settings.spool_path))
    held = asdict(holdings(settings, database))
    for kind in ("sources", "results"):
        at = held[kind]["next"]
        held[kind]["next"] = None if at is None else at.isoformat(timespec="seconds")
    return {"free": disk.free, "watermark": settings.listener.watermark(disk.total), **held}


def lines(settings: Settings, database: Database | None) -> Iterator[str]:
    """Yield the same as sentences; without a ledger nothing is kept."""
    disk = disk_of(existing(settings.spool_path))
    yield _room(settings, disk)
    if database is not None:
        yield from _kept(settings, holdings(settings, database))


def stray_lines(settings: Settings, database: Database) -> Iterator[str]:
    """Yield how many files no row of the ledger knows, where there are any."""
    found = _strays(settings, database)
    if found:
        yield f"strays: {len(found)} files are known to no row of the ledger: pacs-ai strays says more"


def _strays(settings: Settings, database: Database) -> list[Removal]:
    # Nor is it made here: its disk may be away.
    if not (settings.spool_path / "instances").is_dir():
        return []
    spool = Spool(settings.spool_path)
    return [one for folder in range(FOLDERS) for one in strays(spool, database, folder)]


def tell_strays(settings: Settings, *, remove: bool) -> int:
    """Print how many files no row of the ledger knows, and have them removed where that is wished."""
    database = found_database(settings)
    try:
        found = _strays(settings, database)
        if found and remove:
            remove_strays(database, found)
    finally:
        database.close()
    if not found:
        typer.echo("every file in the spool that is older than an hour is known to the ledger")
    elif remove:
        typer.echo(f"{len(found)} files are removed by the worker, within minutes")
    else:
        typer.echo(
            f"{len(found)} files in the spool are known to no row of the ledger. Their senders were told "
            "so, unless the ledger is not the one that took them (a backup that was put back, another "
            "database). Send their Studies again: then they are known. What is left after that, "
            "pacs-ai strays --remove removes"
        )
    return len(found)


def _room(settings: Settings, disk: Disk) -> str:
    watermark = settings.listener.watermark(disk.total)
    return f"disk: {size(disk.free)} free; below {size(watermark)} Instances are refused"


def _kept(settings: Settings, held: Holdings) -> Iterator[str]:
    yield f"spool: {size(held.kept)} kept"
    for kind, outlook in (("sources", held.sources), ("results", held.results)):
        yield f"retention of {kind}: {_outlook(outlook, getattr(settings.retention, kind))}"


def _outlook(outlook: Outlook, age: timedelta | None) -> str:
    if age is None:
        return f"never removed; {size(outlook.later)} of Studies that have ended"
    said = [f"{size(outlook.due)} now, {size(outlook.later)} later"]
    if outlook.next is not None:
        said.append(f"the next on {outlook.next:%Y-%m-%d %H:%M} UTC")
    return "; ".join(said)
