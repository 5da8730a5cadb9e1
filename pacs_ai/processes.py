"""What the gateway asks of the kernel for the processes it starts, and what it is asked (Linux)."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

_PR_SET_PDEATHSIG = 1
_LISTEN = "0A"


class Ending:
    """The request to end, which may come from a signal handler.

    A handler must not set an Event: where the main thread is about to wait for it, that thread holds the
    Event's lock, and waits for itself for ever. ``SimpleQueue.put`` may be called anywhere.
    """

    def __init__(self) -> None:
        self._asked = False
        self._bell: SimpleQueue[None] = SimpleQueue()

    def heed_signals(self) -> None:
        """Take SIGTERM and SIGINT for the request."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ask())

    def ask(self) -> None:
        """Ask the one who waits to end."""
        self._asked = True
        self._bell.put(None)

    def is_asked(self) -> bool:
        """Tell whether somebody asked."""
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Wait for the request; tell whether it came."""
        if not self._asked:
            with suppress(Empty):
                self._bell.get(timeout=seconds)
        return self._asked


def heed_interrupts() -> Callable[[], None]:
    """Return what raises KeyboardInterrupt when Ctrl-C was pressed since, however often it is asked.

    The handler raises it too, at once; but inside of a weak reference's callback or a finalizer, which a
    ledger's connections have, Python drops what is raised. Who goes round asks here as well. Where whoever
    started this process had it ignore Ctrl-C, as a shell does in the background, it still does.
    """
    ending = Ending()

    def heed(number: int, frame: FrameType | None) -> None:
        ending.ask()
        signal.default_int_handler(number, frame)

    def raise_again() -> None:
        if ending.is_asked():
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, heed)
    return raise_again


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
