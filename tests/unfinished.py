"""Which files of the spool are being written just now."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest


def unfinished(temporary: Path) -> list[Path]:
    """Return what lies in the folder, and the files without a name that this process or a child writes."""
    own = psutil.Process()
    found = set(temporary.iterdir())
    for process in (own, *own.children(recursive=True)):
        with suppress(FileNotFoundError, PermissionError):
            found |= set(_open_of(process.pid, temporary))
    return sorted(found)


def _open_of(process: int, temporary: Path) -> list[Path]:
    found = []
    for one in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            target = one.readlink()
            if target.parent == temporary:
                found.append(target)
    return found


def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system be one that does not know ``O_TMPFILE``."""
    real = os.open

    def old(path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", old)
