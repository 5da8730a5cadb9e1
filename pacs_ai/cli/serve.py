"""``pacs-ai serve``: every role on one machine, supervised."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import typer

from pacs_ai.cli.packages import refuse_strangers
from pacs_ai.cli.roles import configured, places, reference_commands, refuse_taken
from pacs_ai.cli.supervisor import Supervisor
from pacs_ai.settings import Settings


def commands(config: Path, settings: Settings) -> dict[str, list[str]]:
    """Return the command of every role; reference models only where the settings name them."""
    base = [sys.executable, "-m", "pacs_ai.cli"]
    roles = {role: [*base, role, "--config", str(config)] for role in ("web", "worker", "listener")}
    models = {f"model-{name}": command for name, command in reference_commands(settings).items()}
    return {**models, **roles}


def prepare(settings: Settings) -> None:
    """Check rules, bring the ledger up to date, and make keys for the built-in models."""
    refuse_strangers()
    configured(settings, "serve").close()
    for endpoint in settings.endpoints.values():
        if not endpoint.reference or endpoint.key is None:
            continue
        path = Path(endpoint.key.reference.removeprefix("file:"))
        if endpoint.key.reference.startswith("file:") and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))


def run(config: Path, settings: Settings) -> int:
    """Run every role until Ctrl-C; return the exit code."""
    refuse_taken(places(settings))
    prepare(settings)
    supervisor = Supervisor(commands(config, settings), log_folder=settings.data / "log")

    def tell() -> None:
        face = settings.listener
        typer.echo(f"DICOM: {face.ae_title} at {face.host}:{face.port}")
        scheme = "http" if settings.web.certificate is None else "https"
        typer.echo(f"Web: {scheme}://{settings.web.host}:{settings.web.port}/dicom-web/workitems")
        typer.echo(f"Logs: {settings.data / 'log'}. Ctrl-C stops everything.")

    return supervisor.run(ready=tell)
