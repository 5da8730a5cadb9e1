"""Several listener processes on one port: what each may take, and how it proves that it lives.

Each process has a socket of its own with SO_REUSEPORT, and the kernel gives a new connection to one of them
by a hash of both addresses and ports (socket(7)). A process that hangs keeps getting its part, so it has to
be seen: the accept loop of each writes a line to its standard output, and who started it kills a silent one.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socketserver import TCPServer
from typing import Any, cast

from pynetdicom.transport import AssociationServer

STUCK = 60.0
"""Seconds after which a commit hangs: a busy ledger gives up after 30, a slow disk is no reason to die."""


@dataclass(frozen=True, slots=True)
class Share:
    """One listener process among those on one port.

    Attributes
    ----------
    number : int
        Which one, from 0.
    processes : int
        How many there are.
    beat : callable, optional
        Called by the accept loop about twice a second, for as long as everything in it goes round.
    """

    number: int = 0
    processes: int = 1
    beat: Callable[[], None] | None = None

    def of(self, limit: int) -> int:
        """Return this process's part of a limit; the parts of all processes sum to it."""
        return limit // self.processes + (self.number < limit % self.processes)


ALONE = Share()
"""The one process on its port."""


class SharingServer(AssociationServer):
    """A server that may share its port, and whose accept loop says that it goes round."""

    def __init__(self, *arguments: Any, share: Share, **named: Any) -> None:
        self._share = share
        super().__init__(*arguments, **named)

    def server_bind(self) -> None:
        """Bind the socket; the kernel lets only processes of one user share a port."""
        if self._share.processes > 1:
            cast("socket.socket", self.socket).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def shutdown(self) -> None:
        """Stop listening; the library's AE does not know this server, and need not forget it."""
        TCPServer.shutdown(self)
        self.server_close()

    def service_actions(self) -> None:
        """Tell, from inside the accept loop, that this process takes connections."""
        super().service_actions()
        if self._share.beat is not None and self.goes_round():
            self._share.beat()

    def goes_round(self) -> bool:
        """Tell whether what stands behind the accept loop goes round, too."""
        return True


def serve(server: AssociationServer) -> None:
    """Let a server take connections in a thread of its own; ``shutdown()`` ends it."""
    threading.Thread(target=server.serve_forever, name="AcceptorServer", daemon=True).start()


def beat_to_parent(committing: Callable[[], float]) -> Callable[[], None]:
    """Return what tells the parent at the other end of standard output that this process lives.

    Parameters
    ----------
    committing : callable
        Returns for how many seconds the commit that is under way has been at it.
    """
    pipe = 1  # standard output, whatever stands before it in this process
    os.set_blocking(pipe, False)  # a parent that does not read must not stop the accept loop

    def beat() -> None:
        if committing() > STUCK:
            return
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(pipe, b"\n")

    return beat
