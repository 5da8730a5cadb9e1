"""How much memory a gateway's processes hold at most, children included."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

import psutil

_LOOK_SECONDS = 0.2
"""A look goes through every process of the machine, and takes time from those that are measured."""


class Memory:
    """Looks at processes while the block lasts, and keeps the peaks.

    Resident bytes (RSS) as the kernel counts them: pages that processes share count for each of them, so
    that a sum is an upper bound.

    Parameters
    ----------
    pids : mapping of str to int
        Processes by role; a worker's children, its private broker too, count as the worker.

    Attributes
    ----------
    peaks : dict of str to int
        Most bytes of each role, ``gateway`` (all roles but the models' servers) and ``everything``, each
        at its own moment.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {role: psutil.Process(pid) for role, pid in pids.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peaks: dict[str, int] = dict.fromkeys([*pids, "gateway", "everything"], 0)

    def __enter__(self) -> Memory:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        with suppress(psutil.NoSuchProcess):
            self._look()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        now = {role: resident(process) for role, process in self._processes.items()}
        now["gateway"] = sum(size for role, size in now.items() if not role.startswith("model-"))
        now["everything"] = sum(now[role] for role in self._processes)
        for name, size in now.items():
            self.peaks[name] = max(self.peaks[name], size)


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and all its children; one that has ended has none."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in family:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
