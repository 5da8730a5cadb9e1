"""Data sets that cannot be read, kept for a while so that somebody can find out what a sender does.

Nothing is promised of them and nothing reads them: they are few, small and old soon. Their names tell when
they came and no more; what is in them may name a patient.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

FILES = 32
"""Most that are kept."""

BYTES = 256 * 1024 * 1024
"""Most that they have together."""

BEGINNING = 64 * 1024 * 1024
"""Bytes that are kept of a larger one."""

AGE = timedelta(days=7)
"""How long they are kept."""


class Quarantine:
    """The folder of what could not be read.

    Parameters
    ----------
    folder : Path
        Made when the first comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, descriptor: int, source: str) -> None:
        """Give a file that nobody else knows a name here; the oldest make room for it.

        Raises
        ------
        OSError
            When the disk does not take it.
        """
        size = min(os.fstat(descriptor).st_size, BEGINNING)
        os.ftruncate(descriptor, size)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._keep(files=FILES - 1, size=BYTES - size)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # With a folder's descriptor the link is followed, which a file without a name needs (proc(5)).
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def sweep(self) -> None:
        """Remove what is too old."""
        if self.folder.is_dir():
            self._keep(files=FILES, size=BYTES)

    def _keep(self, *, files: int, size: int) -> None:
        oldest = time.time() - AGE.total_seconds()
        for path in sorted(self.folder.iterdir(), reverse=True):  # the newest first
            with suppress(FileNotFoundError):  # another process removed it
                found = path.stat()
                files, size = files - 1, size - found.st_size
                if files < 0 or size < 0 or found.st_mtime <= oldest:
                    path.unlink()
