"""``pacs-ai audit verify``: do the sealed events say what they said when they were sealed."""

from __future__ import annotations

import re

import typer

from pacs_ai.ledger.presence import found_ledger
from pacs_ai.settings import Settings


def verify(settings: Settings, noted: str | None) -> int:
    """Print what holds and the first event that does not; 1 when there is one, 2 when `noted` is no seal."""
    if noted is not None and not re.fullmatch("[0-9a-f]{64}", noted):
        typer.echo("--noted: a seal is 64 hexadecimal digits, as this command prints it", err=True)
        return 2
    ledger = found_ledger(settings)
    try:
        verdict = ledger.verify_events(noted=noted)
    finally:
        ledger.close()
    typer.echo(f"sealed events that hold: {verdict.sealed}; the last seal: {verdict.seal}")
    if verdict.oldest_unsealed is not None:
        oldest = verdict.oldest_unsealed.isoformat(timespec="seconds")
        typer.echo(f"not sealed yet: {verdict.unsealed}, the oldest of {oldest}")
    if verdict.broken is None:
        return 0
    event = "" if verdict.broken.event is None else f", event {verdict.broken.event}"
    typer.echo(
        f"BROKEN at position {verdict.broken.position}{event}: {verdict.broken.why}. Keep a copy of "
        "the ledger as it is, and compare it with a backup (docs/audit.md)",
        err=True,
    )
    return 1
