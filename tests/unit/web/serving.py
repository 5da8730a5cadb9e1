"""The web face of a script in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers import free_port


@contextmanager
def serving(script: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a script that serves on the port of its argument and prints *ready*; yield process and port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process, port
        finally:
            process.kill()
