"""Starts processes, starts them again when they die, and stops them cleanly.

Each child asks the kernel to end with its parent, so that nothing stays behind when the supervisor is
killed. A child prints one JSON line when it is ready. Where a child promises to, it goes on printing lines
for as long as it does its work: one that falls silent hangs, and is killed and started again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from pacs_ai.processes import Ending, die_with_parent, killed_with_parent

_LOOK_SECONDS = 0.05
_STOP_SECONDS = 30.0
_START_SECONDS = 30.0
"""So long a child that is watched may take until it is ready."""
_WELL_SECONDS = 10.0
"""A child that was up for so long did not die of its start: it is started again at once."""

_LAST_WORDS = 500
"""So many bytes of a child's log are looked at for why it ended."""


@dataclass(eq=False, slots=True)
class Child:
    """One process that was started."""

    process: subprocess.Popen[bytes]
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)
    """When it last said something, or was started."""
    started: float = field(default_factory=time.monotonic)

    def listen(self) -> None:
        """Read what it prints until it ends; one that nobody reads would wait for ever."""
        assert self.process.stdout is not None  # noqa: S101 - piped where it was started
        with self.process.stdout as lines:
            for _ in lines:
                self.heard = time.monotonic()
                self.ready = True  # the first line says so


class Supervisor:
    """Keeps a set of processes running.

    Parameters
    ----------
    commands : mapping of str to list of str
        What to run, by name.
    log_folder : Path, optional
        Where each process's standard error goes; the supervisor's own when left out.
    restart_delay : float
        Seconds before a process that died is started again; doubles with each death soon after its start,
        up to a minute.
    environment : mapping, optional
        Variables that the children get beside the supervisor's own.
    silence : float, optional
        Seconds after which a child that says nothing is killed; left out where children promise nothing.
    """

    def __init__(
        self,
        commands: Mapping[str, list[str]],
        *,
        log_folder: Path | None = None,
        restart_delay: float = 0.5,
        environment: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> None:
        self._commands = dict(commands)
        self._log_folder = log_folder
        self._restart_delay = restart_delay
        self._environment = {**os.environ, **(environment or {})}
        self._silence = silence
        self._looked = time.monotonic()
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, int] = {}
        self._again_at: dict[str, float] = {}
        self._ending = Ending()

    def start(self) -> None:
        """Start every process."""
        for name in self._commands:
            self._start(name)

    def wait_ready(self, *, seconds: float) -> list[str]:
        """Wait until every process is ready; return the names of those that are not in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._ending.is_asked():
            self.look()
            if not self._late():
                break
            time.sleep(_LOOK_SECONDS)
        return self._late()

    def _late(self) -> list[str]:
        return sorted(name for name, child in self._children.items() if not child.ready)

    def look(self) -> None:
        """Start again what has died, and kill what hangs."""
        at = time.monotonic()
        for name, child in list(self._children.items()):
            if child.process.poll() is None:
                if self._silence is not None:
                    self._watch(name, child, at, self._silence)
            elif name not in self._again_at:
                self._bury(name, child, at)
            elif at >= self._again_at[name]:
                del self._again_at[name]
                self._start(name)
        self._looked = at

    def _watch(self, name: str, child: Child, at: float, silence: float) -> None:
        if at - self._looked > silence / 2:  # who slept himself cannot tell who hangs
            child.heard = at
        limit = silence if child.ready else _START_SECONDS
        if at - child.heard > limit:
            sys.stderr.write(f"{name} said nothing for {limit:g} s: it hangs and is killed\n")
            child.process.kill()
            child.process.wait()

    def _bury(self, name: str, child: Child, at: float) -> None:
        child.ready = False
        if at - child.started > _WELL_SECONDS:
            self._deaths[name] = 0
        deaths = self._deaths[name] = self._deaths.get(name, 0) + 1
        self._again_at[name] = at + min(60.0, self._restart_delay * 2 ** (deaths - 1))
        sys.stderr.write(f"{name} {self._end(name, child.process.returncode)}\n")

    def _end(self, name: str, code: int) -> str:
        """Return how a child ended; what it last said is mostly why, unless it was killed."""
        if code < 0:
            return f"was ended by {Signals(-code).name}; starting it again"
        return f"ended with {code}; starting it again{self._last_words(name)}"

    def _last_words(self, name: str) -> str:
        """Return where a child's log is and how it ends: mostly why the child did."""
        if self._log_folder is None:
            return ""
        log = self._log_folder / f"{name}.log"
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - _LAST_WORDS))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:  # somebody moved it away
            return ""
        last = next((line for line in reversed(lines) if line.strip()), "it says nothing")
        return f" ({log}: {last})"

    def run(self, *, ready: Callable[[], None]) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        self._ending.heed_signals()
        self.start()
        try:
            late = self.wait_ready(seconds=60)
            if late and not self._ending.is_asked():
                sys.stderr.write(f"not ready in 60 s: {', '.join(late)}\n")
                return 1
            if not late:
                ready()
            while not self._ending.wait(_LOOK_SECONDS):
                self.look()
        finally:
            self.stop()
        return 0

    def pid(self, name: str) -> int:
        """Return the process id of a child."""
        return self._children[name].process.pid

    def stop(self) -> None:
        """Ask every process to end, in the order of the commands, and wait for it."""
        self._ending.ask()
        processes = [child.process for child in self._children.values()]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str) -> None:
        errors = None
        if self._log_folder is not None:
            self._log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            errors = (self._log_folder / f"{name}.log").open("ab")
        process = subprocess.Popen(  # noqa: S603 - the commands are our own
            self._commands[name],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            # One that hangs does not hear a polite request. One system call, no lock is taken.
            preexec_fn=die_with_parent if self._silence is None else killed_with_parent,  # noqa: PLW1509
            start_new_session=True,
        )
        if errors is not None:
            errors.close()
        child = self._children[name] = Child(process)
        threading.Thread(target=child.listen, daemon=True).start()
