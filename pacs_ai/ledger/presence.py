"""Is the ledger's file there? A new one must never take the place of one that was lost."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url

from pacs_ai.ledger.engine import LedgerUnusableError
from pacs_ai.settings import Settings


def refuse_lost(settings: Settings) -> None:
    """Refuse to begin with an empty ledger beside a spool that holds what was acknowledged.

    Raises
    ------
    LedgerUnusableError
        When the file is gone and Instances are there.
    """
    if settings.ledger and not settings.ledger.startswith("sqlite"):
        return
    file = make_url(settings.ledger_url).database
    if file is None or Path(file).exists():
        return
    if any((settings.spool_path / "instances").glob("*/*.dcm")):
        raise LedgerUnusableError(
            "the ledger's file is gone, and the spool holds Instances that it knew: put its backup "
            f"back; to begin with nothing, move {settings.spool_path} away too"
        )
