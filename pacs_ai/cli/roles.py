"""Each role of the gateway as one process; the supervisor starts them, and so may a service manager.

A role prints one JSON line ``{"role": ..., "ready": true}`` when it is ready, and JSON lines of log on
standard error.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

from pacs_ai.cli import disk
from pacs_ai.cli.log import log_to_stderr
from pacs_ai.cli.packages import refuse_strangers
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.errors import ConfigError, Fault, PacsAiError
from pacs_ai.gateway import Gateway
from pacs_ai.settings import Endpoint, Secret, Settings

SILENCE = 3.0
"""Seconds after which a listener process that does not say that it lives is replaced."""


def _ready(role: str) -> Callable[[], None]:
    def tell() -> None:
        sys.stdout.write(json.dumps({"role": role, "ready": True}) + "\n")
        sys.stdout.flush()

    return tell


def configured(settings: Settings, role: str) -> Gateway:
    """Return a gateway whose rules and ledger are checked; other settings than before are an event."""
    gateway = Gateway(settings)
    gateway.ledger.note_settings(settings.digest, actor=role)
    return gateway


def ping_broker(url: str) -> None:
    """Ask the broker of the settings whether it is there.

    Raises
    ------
    PacsAiError
        When it does not answer as a broker.
    """
    from worker.broker import ping  # noqa: PLC0415 - faces do not import each other

    ping(url)


def accepted() -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what the listener accepts: SOP Classes (UID to name) and transfer syntaxes."""
    from listener.ae import TRANSFER_SYNTAXES, storage_classes  # noqa: PLC0415

    return storage_classes(), TRANSFER_SYNTAXES


def listener(settings: Settings, config: Path) -> int:
    """Run the DICOM face: one process, or several on one port and this one to watch them."""
    refuse_strangers()
    log_to_stderr()
    count = settings.listener.processes
    if count == 1:
        from listener.ae import run  # noqa: PLC0415 - faces do not import each other
        from listener.sharing import ALONE  # noqa: PLC0415

        run(configured(settings, "listener"), ALONE, ready=_ready("listener"))
        return 0
    configured(settings, "listener").close()  # checked before any process starts
    refuse_taken({"listener": (settings.listener.host, settings.listener.port)})
    base = [sys.executable, "-m", "pacs_ai.cli", "listener", "--config", str(config), "--process"]
    commands = {f"listener process {number}": [*base, str(number)] for number in range(count)}
    supervisor = Supervisor(commands, silence=SILENCE, restart_delay=0.1)
    return supervisor.run(ready=_ready("listener"))


def listener_process(settings: Settings, number: int) -> None:
    """Run one of several processes of the DICOM face; its parent is told twice a second that it lives."""
    from listener.ae import run  # noqa: PLC0415 - faces do not import each other
    from listener.sharing import Share, beat_to_parent  # noqa: PLC0415

    log_to_stderr()
    gateway = configured(settings, "listener")
    beat = beat_to_parent(gateway.committing_seconds)
    share = Share(number, settings.listener.processes, beat)
    run(gateway, share, ready=_ready("listener"))


def refuse_taken(wanted: Mapping[str, tuple[str, int]]) -> None:
    """Refuse to begin where a role could not listen.

    The port that listener processes share would let in every program of this user: another gateway would get
    part of the Studies.

    Parameters
    ----------
    wanted : mapping of str to (str, int)
        Host and port, by what is to listen there.

    Raises
    ------
    PacsAiError
        With every place that is taken, or is none of this machine's.
    """
    taken = [
        f"{one} and {other} are both at {place[0]}:{place[1]}"
        for (one, place), (other, same) in combinations(wanted.items(), 2)
        if place == same
    ]
    for name, (host, port) in wanted.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            why = (
                error.strerror
                if isinstance(error, socket.gaierror)
                else os.strerror(error.errno or 0)
            )
            taken.append(f"{name}: cannot listen at {host}:{port} ({why})")
    if taken:
        raise PacsAiError(
            f"{'; '.join(taken)}: choose another host or port, or end the program that listens there, which "
            "may be a gateway with these settings"
        )


def places(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return host and port of everything that listens with these settings, by its name."""
    listener, web = settings.listener, settings.web
    return {
        "listener": (listener.host, listener.port),
        "web": (web.host, web.port),
        **reference_places(settings),
    }


def reference_places(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return host and port of the reference models that the settings name."""
    addresses = {
        f"endpoints.{name}.url": urlsplit(endpoint.url)
        for name, endpoint in settings.endpoints.items()
        if endpoint.reference
    }
    return {name: (str(one.hostname), one.port or 80) for name, one in addresses.items()}


def worker(settings: Settings) -> None:
    """Run the Celery face."""
    refuse_strangers()
    from worker.app import run  # noqa: PLC0415

    log_to_stderr()
    configured(settings, "worker").close()  # checked before the first message
    run(settings, ready=_ready("worker"))


def web(settings: Settings) -> None:
    """Run the HTTP face."""
    from pacs_ai.certificates import held  # noqa: PLC0415
    from pacs_ai.ledger.tokens import Tokens  # noqa: PLC0415
    from pacs_ai.ledger.views import Views  # noqa: PLC0415
    from pacs_ai.web.app import create_app, run  # noqa: PLC0415
    from pacs_ai.web.guard import Guard  # noqa: PLC0415
    from pacs_ai.web.store import Store  # noqa: PLC0415

    log_to_stderr()
    refuse_taken({"web": (settings.web.host, settings.web.port)})
    gateway = Gateway(settings)
    gateway.spool.sweep()  # what a web role that died left behind
    database = gateway.ledger.database
    tokens = Tokens(database)
    guard = Guard(tokens, settings.web.needed_to_read)
    store = Store(gateway, guard, tokens)
    app = create_app(
        Views(database),
        guard,
        store,
        hosts=settings.web.hosts,
        certificates=lambda: held(settings),
        problems=lambda: disk.problems(settings),
    )
    run(app, settings.web, ready=_ready("web"))
    gateway.close()


def models(settings: Settings) -> int:
    """Run the reference models that the settings name until SIGTERM."""
    log_to_stderr()
    refuse_taken(reference_places(settings))
    supervisor = Supervisor(reference_commands(settings))
    return supervisor.run(ready=_ready("models"))


def reference_commands(settings: Settings) -> dict[str, list[str]]:
    """Return the command of each reference model's server, by the endpoint's name.

    Raises
    ------
    ConfigError
        When a reference endpoint has no port of its own or no key file.
    """
    commands = {}
    for name, endpoint in settings.endpoints.items():
        if not endpoint.reference:
            continue
        address = urlsplit(endpoint.url)
        commands[name] = [
            *(sys.executable, "-m", "pacs_ai.reference.server"),
            *("--model", endpoint.kind, "--host", str(address.hostname)),
            *("--port", str(address.port)),
            *("--key-file", _key_file(name, endpoint)),
        ]
    return commands


def _key_file(name: str, endpoint: Endpoint) -> str:
    key = endpoint.key
    if not isinstance(key, Secret) or not key.reference.startswith("file:"):
        fault = Fault(f"endpoints.{name}.key: a reference model needs key: file:PATH")
        raise ConfigError([fault])
    return key.reference.removeprefix("file:")
