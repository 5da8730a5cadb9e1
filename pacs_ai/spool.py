"""Where bytes rest: received Instances, results, and the SOP Instances the gateway made.

A name is the SHA-256 of what it holds. Bytes are written to a temporary file on the same file system,
synced, linked under their name and the folder synced, before anyone is told that they are safe.

The temporary file of an Instance has no name of its own where the file system can do that (``O_TMPFILE``,
open(2)): nothing of it is left when its process dies.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import F_SETFL, fcntl
from functools import lru_cache
from mmap import mmap
from pathlib import Path
from struct import pack
from typing import cast

from pacs_ai.errors import SpoolError, TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.naming import (
    give_name,
    link,
    open_temporary,
    owner_is_gone,
    sync_folder,
    temporary_name,
)
from pacs_ai.quarantine import Quarantine
from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PIECE = 64 * 1024
"""Bytes of a data set that are hashed at once; for fewer, the change of threads would cost as much."""

BUFFER = 1024 * 1024
"""Bytes of an Instance that are held until there are more, or no more come."""

DIRECT = 128 * 1024
"""Bytes of a file, below which the page cache costs less than to go past it."""

_SPARE = 8
"""Buffers that are kept for those who come next."""

_CANNOT = "the spool cannot be written: check its disk"

FOLDERS = 256
"""Folders that Instances rest in, by the first two digits of their digest."""

TEMPORARY_AGE = 3600.0
"""Seconds after which a temporary file belongs to nobody any more."""


_PAGE = 4096
_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class SpoolFullError(SpoolError, TransientError):
    """The spool cannot take bytes now: no space, or the disk refused."""


class RemovedMeanwhileError(SpoolError, TransientError):
    """A file that was just stored, and had been let go before, was removed in that moment."""


class RemovedError(SpoolError):
    """Retention removed the bytes that are needed; they must be sent again."""


class Spool:
    """A folder of immutable files named by digest.

    Parameters
    ----------
    path : Path
        Made with mode 0700 when it is not there, and the folder above it too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._instances = f"{path}/instances"
        self.temporary = path / "tmp"
        self.quarantine = Quarantine(path / "quarantine")
        self._aside = path / "removed"
        self._buffers: list[memoryview] = []
        # The folder above holds the ledger too.
        for folder in (
            *(path.parent, path, self.temporary, self._aside),
            *(path / "instances", path / "results"),
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What is in a folder is as durable as the folder's own name, whoever made it.
        for folder in (path.parent.parent, path.parent, path):
            with suppress(PermissionError):  # the first may be another's, and was there before
                sync_folder(folder)

    def instance_path(self, digest: str, transfer_syntax_uid: str) -> Path:
        """Return where an Instance rests: named by the digest of its data set, and its encoding."""
        return Path(self.resting(digest, transfer_syntax_uid))

    def resting(self, digest: str, transfer_syntax_uid: str) -> str:
        """Return where an Instance rests, as text: a Path costs more than what is done to the name."""
        return f"{self._instances}/{digest[:2]}/{digest}.{transfer_syntax_uid}.dcm"

    def has(self, resting: str) -> bool:
        """Tell whether something rests there."""
        return os.path.exists(resting)  # noqa: PTH110 - for every Instance

    def results_path(self, digest: str) -> Path:
        """Return where the results of a Job rest."""
        return self.path / "results" / f"{digest}.json"

    def writer(self) -> Writer:
        """Open a temporary file for bytes that are coming in."""
        return Writer(self)

    def lend(self) -> memoryview:
        """Return a buffer on page boundaries; what it held before may still stand in it."""
        try:
            return self._buffers.pop()
        except IndexError:
            return memoryview(mmap(-1, BUFFER))

    def take_back(self, buffer: memoryview) -> None:
        """Keep a buffer for another; its last user writes no more into it."""
        if len(self._buffers) < _SPARE:
            self._buffers.append(buffer)

    def put_results(self, data: bytes) -> str:
        """Store a Job's results durably; return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        self._put(data, self.results_path(digest))
        return digest

    def read_results(self, digest: str) -> bytes:
        """Return a Job's results.

        Raises
        ------
        SpoolError
            When they are missing or are not the bytes that were stored.
        """
        try:
            data = self.results_path(digest).read_bytes()
        except OSError as error:
            raise SpoolError(f"results {digest} are missing from the spool") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise SpoolError(f"results {digest} were changed on disk: restore the spool")
        return data

    def put_instance(self, data: bytes, *, digest: str, transfer_syntax_uid: str) -> Path:
        """Store a DICOM file the gateway made durably; return where it rests."""
        path = self.instance_path(digest, transfer_syntax_uid)
        self._put(data, path)
        return path

    def _put(self, data: bytes, path: Path) -> None:
        temporary = self.temporary / temporary_name()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.take_name(str(temporary), str(path))
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error
        finally:
            temporary.unlink(missing_ok=True)

    def take_name(self, source: str, path: str) -> None:
        """Give a synced file a durable name, whoever has it.

        A name that is there already may stem from a sync that failed, and a second sync could say "done" of
        what was lost by the first: it is replaced, by a name of the same bytes that this process has synced.
        """
        if give_name(source, path):
            return
        other = self.temporary / temporary_name()
        try:
            link(source, str(self.temporary), other.name)
            other.replace(path)
        finally:
            other.unlink(missing_ok=True)
        sync_folder(Path(path).parent)

    def sweep(self) -> int:
        """Remove temporary files whose process is gone, or that are an hour old; return how many.

        What was in quarantine for too long goes too.
        """
        self.quarantine.sweep()
        limit = time.time() - TEMPORARY_AGE
        removed = 0
        for file in self.temporary.iterdir():
            with suppress(FileNotFoundError):
                if owner_is_gone(file) or file.stat().st_mtime <= limit:
                    file.unlink()
                    removed += 1
        return removed

    def settled(self, folder: int) -> list[Path]:
        """Return what rests in one of 256 folders for an hour and longer.

        Results of Jobs that begin with the folder's number are among it.
        """
        limit = time.time() - TEMPORARY_AGE
        found = []
        for file in (
            *(self.path / "instances" / f"{folder:02x}").glob("*.dcm"),
            *(self.path / "results").glob(f"{folder:02x}*.json"),
        ):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime <= limit:
                    found.append(file)
        return found

    def put_aside(self, path: Path) -> None:
        """Take a file's name away, if it is there; it can be given back."""
        with suppress(FileNotFoundError):
            path.replace(self._aside / path.name)

    def aside(self) -> list[Path]:
        """Return what was put aside."""
        return [*self._aside.iterdir()]

    def give_back(self, file: Path, path: Path) -> None:
        """Give what was put aside its name again, durably, unless another file of these bytes has it."""
        give_name(str(file), str(path))

    def sync_folders_of(self, paths: Iterable[Path]) -> None:
        """Make durable that files are gone from their folders."""
        for folder in {path.parent for path in paths}:
            if folder.is_dir():
                sync_folder(folder)

    def disk(self) -> Disk:
        """Return the spool's file system."""
        return disk_of(self.path)


def parts_of(file: Path) -> tuple[str, str]:
    """Return digest and Transfer Syntax UID that a file is named by; results of Jobs have no syntax."""
    digest, _, syntax = file.stem.partition(".")
    return digest, syntax


class Writer:
    """An Instance on its way into the spool: File Meta first, then the data set byte for byte.

    While the sender still sends, what came is hashed. An Instance that fits into one buffer is written from
    there at once. Of a larger one what came is written, and the disk is at work on it: little is left to
    wait for after the last byte.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._named = False
        self._hash = hashlib.sha256()
        self._size = 0
        self._meta = 0
        self._held = self._hashed = self._written = 0
        try:
            descriptor, self._temporary = open_temporary(str(spool.temporary))
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error
        self._file: int | None = descriptor
        self._buffer = spool.lend()

    def begin(self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        """Begin the file with preamble and File Meta Information (PS3.10 section 7.1)."""
        meta = b"".join(
            (
                pack("<HH2sHLH", 2, 0x0001, b"OB", 0, 2, 0x0100),  # the version, 00H 01H
                _usual_text(0x0002, b"UI", sop_class_uid),
                _text(0x0003, b"UI", sop_instance_uid),
                _usual_text(0x0010, b"UI", transfer_syntax_uid),
                _IMPLEMENTATION,
            )
        )
        meta = bytes(128) + b"DICM" + pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta
        self._meta = self._held = self._hashed = len(meta)
        self._buffer[: self._held] = meta

    def write(self, view: bytes | memoryview) -> None:
        """Add bytes of the data set.

        Raises
        ------
        SpoolFullError
            When the disk does not take what came.
        """
        if self._file is None:
            raise SpoolFullError(_CANNOT)
        size = len(view)
        place = self.room(size)
        if place is None:
            self._flush()
            if size > BUFFER:
                self._size += size
                self._hash.update(view)
                self._put(view)
                return
            place = self._buffer[:size]
        place[:] = view
        self.filled(size)

    def room(self, size: int) -> memoryview | None:
        """Return where so many bytes of the data set may be put; None when they have to be written."""
        end = self._held + size
        return self._buffer[self._held : end] if end <= BUFFER else None

    def filled(self, size: int) -> None:
        """Add bytes that were put where :meth:`room` said, and no other call in between."""
        self._size += size
        self._held += size
        if self._held - self._hashed >= PIECE:
            self._hash_held()

    def _hash_held(self) -> None:
        self._hash.update(self._buffer[self._hashed : self._held])
        self._hashed = self._held

    def _flush(self) -> None:
        """Write what is held, and let the disk begin with it."""
        self._hash_held()
        self._put(self._buffer[: self._held])
        self._held = self._hashed = 0

    def _put(self, data: bytes | memoryview) -> None:
        try:
            _write_all(cast("int", self._file), data)
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error
        start, self._written = self._written & -_PAGE, self._written + len(data)
        # A page that is not full yet would be written twice.
        start_writing(cast("int", self._file), start, self._written & -_PAGE)

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._size

    def beginning(self, size: int) -> bytes:
        """Return the first bytes of the data set, so many where there are so many.

        Raises
        ------
        SpoolFullError
            When the disk does not take them, or give them back.
        """
        if not self._written:
            return bytes(self._buffer[self._meta : min(self._held, self._meta + size)])
        self._flush()
        try:
            return os.pread(cast("int", self._file), size, self._meta)
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error

    def digest(self) -> str:
        """Return the SHA-256 of the data set's bytes, hexadecimal."""
        self._hash_held()
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Make the bytes durable.

        Raises
        ------
        SpoolFullError
            When a write or sync failed: the file is bad and nothing of it is kept.
        """
        try:
            self._write_rest(cast("int", self._file))
            failpoint("receive.written")
            os.fsync(cast("int", self._file))
        except OSError as error:
            self.discard()
            raise SpoolFullError(_CANNOT) from error
        failpoint("receive.synced")

    def _write_rest(self, descriptor: int) -> None:
        held = self._buffer[: self._held]
        whole = self._held & -_PAGE
        if not self._written and whole >= DIRECT and _write_past_cache(descriptor, held[:whole]):
            held = held[whole:]
        _write_all(descriptor, held)
        self._written += self._held
        self._held = self._hashed = 0

    def name(self, path: str) -> None:
        """Give the synced file its name, durably, unless another file has it.

        A name whose row is never written is a stray (:mod:`pacs_ai.retention`).

        Raises
        ------
        SpoolFullError
            When the disk refused.
        """
        try:
            self._named = give_name(self._source, path)
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error

    def hold_name(self, path: str) -> None:
        """See to it that the name is this file's, durably; the caller lets nobody remove files.

        Raises
        ------
        SpoolFullError
            When the disk refused.
        """
        try:
            own = os.fstat(cast("int", self._file))
            with suppress(FileNotFoundError):
                there = os.stat(path)  # noqa: PTH116 - for every Instance
                if (own.st_ino, own.st_dev) == (there.st_ino, there.st_dev):
                    return
            if self._named and own.st_nlink == 0:
                self._write_again()
            self._spool.take_name(self._source, path)
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error

    def _write_again(self) -> None:
        """Copy the bytes into another file: one that has lost its last name gets no other (linkat(2))."""
        lost = cast("int", self._file)
        self._file, self._temporary = open_temporary(str(self._spool.temporary))
        try:
            place, size = 0, os.fstat(lost).st_size
            while place < size:
                place += os.sendfile(self._file, lost, place, size - place)
        finally:
            os.close(lost)
        os.fsync(self._file)

    def quarantine(self) -> None:
        """Keep what cannot be read for somebody to look at, where the disk takes it; then ``discard``."""
        with suppress(OSError):
            descriptor = cast("int", self._file)
            self._write_rest(descriptor)
            self._spool.quarantine.take(descriptor, self._source)

    def discard(self) -> None:
        """Forget what has no name; safe to call twice."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._spool.take_back(self._buffer)
        with suppress(OSError):
            os.close(file)
        if self._temporary:
            with suppress(FileNotFoundError):
                Path(self._temporary).unlink()

    @property
    def _source(self) -> str:
        return self._temporary or f"/proc/self/fd/{self._file}"


def _text(element: int, vr: bytes, value: str) -> bytes:
    # UI is padded with NUL, SH with a space, to even length (PS3.5 section 6.2).
    data = value.encode("ascii")
    if len(data) % 2:
        data += b"\0" if vr == b"UI" else b" "
    return pack("<HH2sH", 2, element, vr, len(data)) + data


_usual_text = lru_cache(maxsize=64)(_text)

_IMPLEMENTATION = _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID) + _text(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME
)


def start_writing(descriptor: int, start: int, end: int) -> None:
    """Let the disk begin with these bytes, and wait for nothing (sync_file_range(2), Linux).

    It promises nothing: the sync that follows does, and has less to wait for.
    """
    _sync_file_range(descriptor, start, end - start, _SYNC_FILE_RANGE_WRITE)


def _write_past_cache(descriptor: int, pages: memoryview) -> bool:
    """Write whole pages, on page boundaries, without a copy in the page cache (O_DIRECT, open(2)).

    False when the file system cannot, and nothing is written. A sync is due as after any write.
    """
    try:
        fcntl(descriptor, F_SETFL, os.O_DIRECT)
    except OSError:
        return False
    try:
        _write_all(descriptor, pages)
    except OSError as error:
        if error.errno != errno.EINVAL or os.lseek(descriptor, 0, os.SEEK_CUR):
            raise
        return False
    finally:
        fcntl(descriptor, F_SETFL, 0)
    return True


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: bytes in all, and those left to the gateway's user."""

    total: int
    free: int


def disk_of(folder: Path) -> Disk:
    """Return the file system that a folder is on."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
