"""Names of files that survive a power cut, and files that have none yet.

A name is durable once its folder is synced, and the folder's own name once the folder above it is. A
temporary file has no name where the file system can do that (``O_TMPFILE``, open(2)); elsewhere its name says
whose it is.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

_SYNCED: set[str] = set()
"""Folders whose own name this process made durable; one that another has just made may not be yet."""

_NEEDS_NAME = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
"""How a file system, or a kernel, says that it knows no files without a name (open(2))."""


def temporary_prefix() -> str:
    """Return how the names of this process's temporary files begin."""
    return f"{os.getpid()}."


def temporary_name() -> str:
    """Return a new name for a temporary file: whose it is, and which."""
    return temporary_prefix() + str(uuid.uuid4())


def owner_is_gone(file: Path) -> bool:
    """Tell whether a temporary file is of a process that is no more."""
    owner = file.name.partition(".")[0]
    return owner.isdigit() and not Path("/proc", owner).exists()


def open_temporary(folder: str) -> tuple[int, str]:
    """Open a new file; return its descriptor, and its path where it has to have one."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600), ""
    except OSError as error:
        if error.errno not in _NEEDS_NAME:
            raise
    path = f"{folder}/{temporary_name()}"
    return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), path


def give_name(source: str, path: str) -> bool:
    """Give a synced file a durable name; False when another file has it, and nothing is done."""
    folder, _, name = path.rpartition("/")
    if folder not in _SYNCED:
        _make_folder(Path(folder))
    try:
        return _link_new(source, folder, name)
    except FileNotFoundError:  # somebody removed the folder
        _make_folder(Path(folder))
        return _link_new(source, folder, name)


def _link_new(source: str, folder: str, name: str) -> bool:
    try:
        link(source, folder, name)
    except FileExistsError:
        return False
    return True


def link(source: str, folder: str, name: str) -> None:
    """Give a file another name, durably.

    Raises
    ------
    FileExistsError
        When a file has that name already.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Of a file without a name the source is a link to its descriptor, which must be followed (proc(5)).
        os.link(source, name, dst_dir_fd=descriptor, follow_symlinks=True)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    there = [folder]
    if folder.is_dir():  # of an earlier process, as are its neighbours: one sync is for all of them
        there = [one for one in folder.parent.iterdir() if one.is_dir()]
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        sync_folder(folder.parent)
    except OSError:
        with suppress(OSError):  # an empty one is made anew, not synced again
            folder.rmdir()
        raise
    _SYNCED.update(map(str, there))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
