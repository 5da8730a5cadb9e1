"""Places where a test may end a process at once, to prove that nothing is lost there.

Nothing happens unless the environment variable ``PACS_AI_FAILPOINT`` names places (with commas between)
when the process starts. With ``PACS_AI_FAILPOINT_ONCE`` a place is armed for one death: the file of its
name in that folder is taken away by the process that dies, so that the next one goes on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

PLACES = (
    "receive.written",
    "receive.synced",
    "receive.linked",
    "receive.recorded",
    "assemble.claimed",
    "assemble.committed",
    "route.claimed",
    "route.committed",
    "infer.claimed",
    "infer.answered",
    "infer.stored",
    "infer.committed",
    "encode.claimed",
    "encode.stored",
    "encode.committed",
    "deliver.claimed",
    "deliver.sent",
    "deliver.answered",
    "deliver.committed",
    "worklist.claimed",
    "worklist.committed",
    "retention.let_go",
    "retention.aside",
    "retention.removed",
)
"""Every place there is; the kill test walks them all."""

_armed = frozenset(os.environ.get("PACS_AI_FAILPOINT", "").split(","))


def failpoint(place: str) -> None:
    """Die here by SIGKILL when a test armed this place."""
    if place not in _armed:
        return
    once = os.environ.get("PACS_AI_FAILPOINT_ONCE")
    if once is not None:
        try:
            (Path(once) / place).unlink()
        except FileNotFoundError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
