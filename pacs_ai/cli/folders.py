"""Folders that a command fills: made anew, and never somebody else's."""

from __future__ import annotations

import shutil
from pathlib import Path

from pacs_ai.cli.disk import existing
from pacs_ai.errors import ConfigError, Fault

_MARK = ".pacs-ai"


def make_anew(folder: Path) -> None:
    """Make a folder empty for a run; one that is not empty must be of an earlier run.

    Raises
    ------
    ConfigError
        When the folder holds something that no run of this command left there, or cannot be made.
    """
    if not (there := existing(folder)).is_dir():
        raise ConfigError([Fault(f"{there} is a file: give --out a folder")])
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ConfigError([Fault(f"{folder} is not empty: give --out an empty or new folder")])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / _MARK).touch()
