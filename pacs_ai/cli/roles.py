"""Each role of the gateway as one process; the supervisor starts them, and so may a service manager.

A role prints one JSON line ``{"role": ..., "ready": true}`` when it is ready, and JSON lines of log on
standard error.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pydicom

from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.errors import ConfigError, Fault
from pacs_ai.gateway import Gateway
from pacs_ai.settings import Endpoint, Secret, Settings


class JsonLines(logging.Formatter):
    """One JSON object a line; control characters escaped, extra fields kept."""

    _STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in record.__dict__.items() if k not in self._STANDARD}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """Send the log of this process to standard error as JSON lines.

    pydicom warns of bad values by printing them, and a value may be a patient's: it is told not to.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


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


def listener(settings: Settings) -> None:
    """Run the DICOM face."""
    from listener.ae import run  # noqa: PLC0415 - faces do not import each other

    log_to_stderr()
    run(configured(settings, "listener"), ready=_ready("listener"))


def worker(settings: Settings) -> None:
    """Run the Celery face."""
    from worker.app import run  # noqa: PLC0415

    log_to_stderr()
    configured(settings, "worker").close()  # checked before the first message
    run(settings, ready=_ready("worker"))


def web(settings: Settings) -> None:
    """Run the HTTP face."""
    from pacs_ai.ledger.engine import Database  # noqa: PLC0415
    from pacs_ai.ledger.views import Views  # noqa: PLC0415
    from pacs_ai.web.app import create_app, run  # noqa: PLC0415

    log_to_stderr()
    database = Database(settings.ledger_url)
    database.upgrade()
    views = Views(database)
    run(create_app(views), host=settings.web.host, port=settings.web.port, ready=_ready("web"))


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
