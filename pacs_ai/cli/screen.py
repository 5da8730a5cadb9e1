"""Where tables go: as wide as the terminal, or wide enough for UIDs when nobody watches."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPED_COLUMNS = 160


def screen() -> Console:
    """Return the console that tables and progress are shown on."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPED_COLUMNS)
