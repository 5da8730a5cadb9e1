"""Starts processes, starts them again when they die, and stops them cleanly.

Each child asks the kernel to end with its parent, so that nothing stays behind when the supervisor is
killed. A child prints one JSON line when it is ready.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pacs_ai.processes import die_with_parent

_LOOK_SECONDS = 0.05
_STOP_SECONDS = 30.0


class Supervisor:
    """Keeps a set of processes running.

    Parameters
    ----------
    commands : mapping of str to list of str
        What to run, by name.
    log_folder : Path, optional
        Where each process's standard error goes; the supervisor's own when left out.
    restart_delay : float
        Seconds before a process that died is started again; doubles with each death, up to a minute.
    environment : mapping, optional
        Variables that the children get beside the supervisor's own.
    """

    def __init__(
        self,
        commands: Mapping[str, list[str]],
        *,
        log_folder: Path | None = None,
        restart_delay: float = 0.5,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._commands = dict(commands)
        self._log_folder = log_folder
        self._restart_delay = restart_delay
        self._environment = {**os.environ, **(environment or {})}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ready: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._again_at: dict[str, float] = {}
        self._over = threading.Event()

    def start(self) -> None:
        """Start every process."""
        for name in self._commands:
            self._start(name)

    def wait_ready(self, *, seconds: float) -> list[str]:
        """Wait until every process is ready; return the names of those that are not in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._over.is_set():
            self.look()
            if self._ready >= set(self._commands):
                break
            time.sleep(_LOOK_SECONDS)
        return sorted(set(self._commands) - self._ready)

    def look(self) -> None:
        """Start again what has died."""
        at = time.monotonic()
        for name, child in list(self._children.items()):
            if child.poll() is None:
                continue
            if name not in self._again_at:
                deaths = self._deaths[name] = self._deaths.get(name, 0) + 1
                delay = min(60.0, self._restart_delay * 2 ** (deaths - 1))
                self._again_at[name] = at + delay
                self._ready.discard(name)
                sys.stderr.write(f"{name} ended with {child.returncode}; starting it again\n")
            elif at >= self._again_at[name]:
                del self._again_at[name]
                self._start(name)

    def run(self, *, ready: Callable[[], None]) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._over.set())
        self.start()
        try:
            late = self.wait_ready(seconds=60)
            if late and not self._over.is_set():
                sys.stderr.write(f"not ready in 60 s: {', '.join(late)}\n")
                return 1
            ready()
            while not self._over.wait(_LOOK_SECONDS):
                self.look()
        finally:
            self.stop()
        return 0

    def pid(self, name: str) -> int:
        """Return the process id of a child."""
        return self._children[name].pid

    def stop(self) -> None:
        """Ask every process to end, in the order of the commands, and wait for it."""
        self._over.set()
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children.values():
            try:
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _start(self, name: str) -> None:
        errors = None
        if self._log_folder is not None:
            self._log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            errors = (self._log_folder / f"{name}.log").open("ab")
        child = subprocess.Popen(  # noqa: S603 - the commands are our own
            self._commands[name],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            start_new_session=True,
        )
        if errors is not None:
            errors.close()
        self._children[name] = child
        threading.Thread(target=self._listen, args=(name, child), daemon=True).start()

    def _listen(self, name: str, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None  # noqa: S101 - piped above
        with child.stdout as lines:
            if lines.readline():  # the first line that a role prints says that it is ready
                self._ready.add(name)
            for _ in lines:  # read on, or a child that prints more would wait for ever
                pass
