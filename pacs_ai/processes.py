"""What the gateway asks of the kernel for the processes it starts (Linux)."""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LISTEN = "0A"


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent is gone, however it went (prctl(2)).

    For ``preexec_fn``: no child outlives a supervisor that was killed.
    """
    _signal_at_parents_death(signal.SIGTERM)


def killed_with_parent() -> None:
    """As :func:`die_with_parent`, for a process that may hang: it is not asked, it is killed."""
    _signal_at_parents_death(signal.SIGKILL)


def _signal_at_parents_death(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def listening(port: int) -> int:
    """Return how many sockets of this machine listen on a TCP port (proc(5), ``/proc/net/tcp``).

    Processes that share a port have a socket each; 0 where there is no such table.
    """
    found = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                found += state == _LISTEN and int(local.rpartition(":")[2], 16) == port
    return found
