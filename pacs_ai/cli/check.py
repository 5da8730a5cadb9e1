"""``pacs-ai check``: every problem at once, each with what to do about it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import typer

from pacs_ai import routing
from pacs_ai.cli.packages import strangers
from pacs_ai.errors import ConfigError, Fault, PacsAiError
from pacs_ai.ledger.engine import Database
from pacs_ai.peers.echo import echo
from pacs_ai.settings import DicomDestination, Settings, load
from pacs_ai.worklist import rules as worklist_rules


def run(config: Path) -> int:
    """Print every problem; return 0 when there is none, 2 for wrong settings, 1 for the rest."""
    try:
        settings = load(config)
    except ConfigError as error:
        _tell(error.faults)
        return 2
    wrong = [*_rule_faults(settings)]
    problems = [fault for look in CHECKS for fault in look(settings)]
    _tell([*wrong, *problems])
    if wrong:
        return 2
    if problems:
        return 1
    typer.echo("no problem found")
    return 0


def _tell(faults: list[Fault]) -> None:
    for fault in faults:
        typer.echo(str(fault), err=True)


def _rule_faults(settings: Settings) -> Iterator[Fault]:
    for parse in (routing.parse, worklist_rules.parse):
        try:
            parse(settings)
        except ConfigError as error:
            yield from error.faults


def _imports(settings: Settings) -> Iterator[Fault]:
    yield from strangers()


def _disk(settings: Settings) -> Iterator[Fault]:
    folder = settings.data
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        yield Fault(f"data: {folder} is a file, not a folder: choose another `data`")
        return
    if not os.access(folder, os.W_OK):
        yield Fault(f"data: {settings.data} cannot be written: change its owner or `data`")
        return
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < settings.listener.minimum_free:
        yield Fault(
            f"data: {free >> 20} MiB free, less than listener.minimum_free: "
            "every Instance would be refused; make room"
        )


def _ledger(settings: Settings) -> Iterator[Fault]:
    if not settings.ledger and not (settings.data / "ledger.sqlite").exists():
        return  # made at the first start
    try:
        database = Database(settings.ledger_url)
        try:
            database.verify()
        finally:
            database.close()
    except PacsAiError as error:
        yield Fault(f"ledger: {error}")


def _ports(settings: Settings) -> Iterator[Fault]:
    if _is_ours(settings):
        return
    for name, host, port in (
        ("listener", settings.listener.host, settings.listener.port),
        ("web", settings.web.host, settings.web.port),
    ):
        if _connects(host, port):
            yield Fault(f"{name}.port: {port} is taken by another program: choose another port")


def _is_ours(settings: Settings) -> bool:
    # A running gateway answers on its own port; that is no problem to report.
    face = settings.listener
    peer = next(iter(settings.peers.values()), None)
    if peer is None:
        return False
    answer = echo(host=face.host, port=face.port, called=face.ae_title, calling=peer.ae_titles[0])
    return answer.ok


def _endpoints(settings: Settings) -> Iterator[Fault]:
    for name, endpoint in settings.endpoints.items():
        where = f"endpoints.{name}"
        try:
            if endpoint.key is not None:
                endpoint.key.read()
        except ConfigError as error:
            if not endpoint.reference:  # `serve` makes the keys of the built-in models
                yield from (Fault(f"{where}.key: {fault.message}") for fault in error.faults)
        address = urlsplit(endpoint.url)
        port = address.port or (443 if address.scheme == "https" else 80)
        if not endpoint.reference and not _connects(str(address.hostname), port):
            yield Fault(
                f"{where}.url: nothing answers there: check the address, the name service "
                "and the firewall"
            )


def _destinations(settings: Settings) -> Iterator[Fault]:
    for name in settings.destination_names:
        target = settings.destination(name)
        if isinstance(target, DicomDestination):
            answer = echo(
                host=target.host,
                port=target.port,
                called=target.ae_title,
                calling=target.calling_ae_title,
            )
            if not answer.ok:
                yield Fault(f"{name}: C-ECHO failed: {answer.detail}")
    for name in settings.peers if settings.delivery == "origin" else ():
        if settings.destination(name) is None:
            yield Fault(f"peers.{name}: delivery is origin, but it has no host and port: add them")


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False


CHECKS: tuple[Callable[[Settings], Iterator[Fault]], ...] = (
    _imports,
    _disk,
    _ledger,
    _ports,
    _endpoints,
    _destinations,
)
