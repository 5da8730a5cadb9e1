"""Each role of the gateway as one process; the supervisor starts them, and so may a service manager.

A role prints one JSON line ``{"role": ..., "ready": true}`` when it is ready, and JSON lines of log on
standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from pacs_ai.cli.log import log_to_stderr
from pacs_ai.cli.packages import refuse_strangers
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.errors import ConfigError, Fault
from pacs_ai.gateway import Gateway
from pacs_ai.settings import Endpoint, Secret, Settings


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


def listener(settings: Settings) -> None:
    """Run the DICOM face."""
    refuse_strangers()
    from listener.ae import run  # noqa: PLC0415 - faces do not import each other

    log_to_stderr()
    run(configured(settings, "listener"), ready=_ready("listener"))


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
    )
    run(app, settings.web, ready=_ready("web"))
    gateway.close()


def models(settings: Settings) -> int:
    """Run the reference models that the settings name until SIGTERM."""
    log_to_stderr()
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
