"""``pacs-ai check``: every problem at once, each with what to do about it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from pacs_ai import prototypes, routing
from pacs_ai.certificates import held, is_shown_at
from pacs_ai.cli import disk, neighbours
from pacs_ai.cli.packages import strangers
from pacs_ai.errors import ConfigError, Fault, PacsAiError, SpoolError, unusable
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.engine import Database, LedgerBusyError, LedgerRefusedError
from pacs_ai.ledger.presence import (
    is_open_to_others,
    is_there,
    refuse_emptied,
    refuse_lost,
    refuse_lost_spool,
)
from pacs_ai.ledger.soundness import dated_ahead, unsound
from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.ledger.views import Views
from pacs_ai.peers.echo import echo
from pacs_ai.processes import listening
from pacs_ai.settings import Settings, load, salvaged
from pacs_ai.spool import Spool
from pacs_ai.worklist import rules as worklist_rules

_Look = Callable[[Settings], Iterator[Fault]]

_YEARS = range(2026, 2100)
_WARNING = timedelta(days=30)
"""How long before its end a token or certificate is told of."""


def run(config: Path) -> int:
    """Print every problem; return 0 when there is none, 2 for wrong settings, 1 for the rest."""
    try:
        settings = load(config)
    except ConfigError as error:
        beside, missed = _beside_settings(config)
        _tell([*error.faults, *beside])
        if missed:
            typer.echo(
                f"{', '.join(missed)}: not looked at, for want of sound settings: mend them, and ask again",
                err=True,
            )
        return 2
    _tell_of_disk(settings)
    wrong = [*_rule_faults(settings)]
    problems = [fault for look, _ in LOOKS.values() for fault in _rimmed(look, settings)]
    _tell([*wrong, *problems])
    if wrong:
        return 2
    for note in neighbours.notes(settings):
        typer.echo(f"note: {note}")
    if problems:
        return 1
    typer.echo("no problem found")
    return 0


def _beside_settings(config: Path) -> tuple[list[Fault], list[str]]:
    """Look at what can be looked at though the settings are wrong; return also what cannot."""
    try:
        settings, lost = salvaged(config)
    except ConfigError:
        settings, lost = Settings.model_construct(), frozenset(Settings.model_fields)
    faults: list[Fault] = []
    missed: list[str] = []
    if lost.isdisjoint(_OF_RULES):
        faults += _rule_faults(settings)
    else:
        missed.append("rules")
    for name, (look, needed) in LOOKS.items():
        if lost.isdisjoint(needed):
            faults += _rimmed(look, settings)
        else:
            missed.append(name)
    return faults, missed


def _rimmed(look: _Look, settings: Settings) -> Iterator[Fault]:
    """Yield what a look finds; one that fails is a fault itself, and hides no other."""
    try:
        yield from look(settings)
    except Exception as error:
        yield _failed(look.__name__.strip("_"), error)


def _failed(name: str, error: Exception) -> Fault:
    if isinstance(error, OSError) and error.filename is not None:
        return Fault(f"{name}: {unusable(error)}")
    # By its type only: what others raise may quote what they read.
    return Fault(
        f"{name}: not looked at to the end ({type(error).__name__}): correct what the settings say "
        f"of {name}; if nothing is wrong there, report it"
    )


def _tell_of_disk(settings: Settings) -> None:
    """Print what is free and kept, where it can be known; what is wrong is told as a fault."""
    with suppress(Exception):  # the looks at disk and ledger meet the same, and tell it
        if not is_there(settings):
            typer.echo("\n".join(disk.lines(settings, None)))
            return
        database = Database(settings.ledger_url)
        try:
            current = database.verify()
            typer.echo("\n".join(disk.lines(settings, database if current else None)))
            if current:
                for line in disk.stray_lines(settings, database):
                    typer.echo(line)
        finally:
            database.close()


def _tell(faults: list[Fault]) -> None:
    for fault in faults:
        typer.echo(str(fault), err=True)


def _rule_faults(settings: Settings) -> Iterator[Fault]:
    for parse in (routing.parse, worklist_rules.parse, prototypes.check):
        try:
            parse(settings)
        except ConfigError as error:
            yield from error.faults
        except Exception as error:
            yield _failed("rules", error)


def _imports(settings: Settings) -> Iterator[Fault]:
    yield from strangers()


def _disk(settings: Settings) -> Iterator[Fault]:
    try:
        folder = disk.existing(settings.data)
    except OSError:  # one above it may not be entered
        yield Fault(
            f"data: {settings.data} cannot be reached: change the owner of the folders above it, or `data`"
        )
        return
    if not folder.is_dir():
        yield Fault(f"data: {folder} is a file, not a folder: choose another `data`")
        return
    if not os.access(folder, os.W_OK):
        yield Fault(f"data: {settings.data} cannot be written: change its owner or `data`")
        return
    for folder in Spool.folders(settings.spool_path):
        if folder.exists() and not folder.is_dir():
            yield Fault(f"spool: {folder} is a file, not a folder: move it away")
            break  # nothing is below it
        if not os.access(disk.existing(folder), os.W_OK | os.X_OK):
            yield Fault(
                f"spool: {folder} cannot be written: change its owner or mode, or its disk's"
            )
    yield from (Fault(f"data: {problem}") for problem in disk.problems(settings))


def _ledger(settings: Settings) -> Iterator[Fault]:
    try:
        refuse_lost(settings)
        if not is_there(settings):
            return  # made at the first start
        if is_open_to_others(settings):
            yield Fault("ledger: other users can read its file, which names patients: chmod 600 it")
        database = Database(settings.ledger_url)
        try:
            refuse_emptied(settings, database)
            if database.is_empty():
                return  # filled at the first start
            sound = True
            for reason in unsound(database):
                sound = False
                yield Fault(f"ledger: {reason}")
            if sound:  # an earlier schema may lack tables
                yield from (Fault(f"ledger: {reason}") for reason in dated_ahead(database))
                yield from (Fault(problem) for problem in Views(database).health()["problems"])
                yield from _tokens(settings, Tokens(database))
                yield from _spool(settings, database)
        finally:
            database.close()
    except PermissionError:
        yield Fault(
            "ledger: its file cannot be reached: change the owner of the folders above it, or `ledger`"
        )
    except LedgerRefusedError as error:
        yield Fault(f"ledger: {error}")
    except LedgerBusyError as error:
        yield Fault(f"ledger: {error}: {_ledger_remedy(settings)}")
    except PacsAiError as error:
        yield Fault(f"ledger: {error}")


def _spool(settings: Settings, database: Database) -> Iterator[Fault]:
    try:
        refuse_lost_spool(settings, database)
    except SpoolError as error:
        yield Fault(f"spool: {error}")
    except OSError:
        yield Fault(
            f"spool: {settings.spool_path} cannot be reached: change the owner of the folders above it"
        )


def _ledger_remedy(settings: Settings) -> str:
    if settings.ledger_url.startswith("sqlite"):
        return "find the program that holds its file, end it, and look at its disk"
    return "start its server, or correct host, port, name and role in `ledger`"


def _tokens(settings: Settings, tokens: Tokens) -> Iterator[Fault]:
    at = now()
    senders = {
        one.name for one in tokens.listed() if one.scope is Scope.STOW and one.state(at) == "valid"
    }
    for name in sorted(senders) if settings.delivery == "origin" else ():
        if settings.destination(name) is None:
            yield Fault(
                f"token of {name}: delivery is origin, but no peer of this name has host and port: "
                "name the token like a peer; until then results of its Studies are withheld"
            )
    for one in tokens.expiring(before=at + _WARNING):
        until = f"{one.expires_at:%Y-%m-%d}"
        when = f"ended on {until}" if one.state(at) == "expired" else f"ends on {until}"
        yield Fault(
            f"token {one.id} of {one.name} ({one.scope}) {when}: make another under the same name "
            "and change its client, or revoke it"
        )


def _certificates(settings: Settings) -> Iterator[Fault]:
    at = now()
    for one in held(settings):
        alarm = one.alarm(at)
        if one.problem:
            yield Fault(one.problem)
        elif alarm is not None:
            left = "1 day" if alarm.days == 1 else f"{alarm.days} days"
            what = (
                "its successor beside it"
                if "authorities" in one.setting
                else "another and its key in its place"
            )
            yield Fault(
                f"{one.setting}: it ends on {one.ends:%Y-%m-%d}, within {left}: put {what}; "
                "no restart is needed"
            )


def _clock(settings: Settings) -> Iterator[Fault]:
    year = datetime.now(UTC).year
    if year not in _YEARS:
        yield Fault(
            f"this machine's clock says {year}: set it, and let a time service keep it; "
            "every date in results and every deadline comes from it"
        )


def _ports(settings: Settings) -> Iterator[Fault]:
    if settings.listener.port == settings.web.port and _overlap(
        settings.listener.host, settings.web.host
    ):
        yield Fault(
            f"web.port: {settings.web.port} is listener.port too: choose another port for one of them"
        )
    if _is_ours(settings):
        yield from _processes(settings)
        return
    for name, host, port in (
        ("listener", settings.listener.host, settings.listener.port),
        ("web", settings.web.host, settings.web.port),
    ):
        if neighbours.connects(host, port):
            yield Fault(f"{name}.port: {port} is taken by another program: choose another port")
        else:
            yield from _bound(name, host, port)


def _overlap(one: str, other: str) -> bool:
    places = {"127.0.0.1" if host == "localhost" else host for host in (one, other)}
    return len(places) == 1 or not places.isdisjoint(("0.0.0.0", "::"))  # noqa: S104 - compared


def _bound(name: str, host: str, port: int) -> Iterator[Fault]:
    """Yield why a role could not listen there; nobody is listened to."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the roles do: connections of one that has ended do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            yield Fault(
                f"{name}.host: {host} is no address of this machine: choose one that it has, or "
                "correct its network"
            )
        else:
            yield Fault(
                f"{name}.port: this user cannot listen at {port} ({error.strerror}): choose another "
                "port"
            )


def _processes(settings: Settings) -> Iterator[Fault]:
    wanted, found = settings.listener.processes, listening(settings.listener.port)
    if 0 < found < wanted:  # none: the gateway's listener is on another machine
        yield Fault(
            f"listener: {found} of {wanted} processes listen: the others are being replaced; ask again "
            "in ten seconds, and if it stays so, look at the listener's log"
        )


def _is_ours(settings: Settings) -> bool:
    # A running gateway answers on its own port, if only that it takes nobody from this machine; that is no
    # problem to report.
    face = settings.listener
    if face.certificate is not None:
        if is_shown_at(face.host, face.port, face.certificate):
            return True
        # A new one may lie there whose key is still to come, which is told: the former is shown until then.
        unusable = (one.setting for one in held(settings) if one.ends is None)
        return "listener.certificate" in unusable and neighbours.connects(face.host, face.port)
    titles = (one.ae_titles[0] for one in settings.peers.values())
    calling = next(titles, face.ae_title)
    return echo(host=face.host, port=face.port, called=face.ae_title, calling=calling).is_called


LOOKS: Mapping[str, tuple[_Look, frozenset[str]]] = {
    "imports": (_imports, frozenset()),
    "disk": (_disk, frozenset({"data", "listener"})),
    "ledger": (
        _ledger,
        frozenset({"ledger", "data", "work", "delivery", "peers", "destinations"}),
    ),
    "clock": (_clock, frozenset()),
    "certificates": (_certificates, frozenset({"listener", "web", "peers", "destinations"})),
    "ports": (_ports, frozenset({"listener", "web", "peers"})),
    "broker": (neighbours.broker, frozenset({"broker"})),
    "endpoints": (neighbours.endpoints, frozenset({"endpoints"})),
    "destinations": (
        neighbours.destinations,
        frozenset({"listener", "peers", "destinations", "delivery"}),
    ),
    "clocks of others": (
        neighbours.clocks,
        frozenset({"listener", "endpoints", "peers", "destinations"}),
    ),
}
"""Every look, by name, and the sections of the settings that it needs."""

_OF_RULES = frozenset({"endpoints", "peers", "destinations", "delivery", "defaults", "site"})
