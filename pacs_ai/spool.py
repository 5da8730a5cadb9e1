"""Where bytes rest: received Instances, results, and the SOP Instances the gateway made.

A name is the SHA-256 of what it holds. Bytes are written to a temporary file on the same file system,
synced, linked under their name and the folder synced, before anyone is told that they are safe.

The temporary file of an Instance has no name of its own where the file system can do that (``O_TMPFILE``,
open(2)): nothing of it is left when its process dies.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

from pacs_ai.direct import Buffer
from pacs_ai.errors import SpoolError, TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.file_meta import around
from pacs_ai.naming import (
    give_name,
    link,
    open_temporary,
    owner_is_gone,
    sync_folder,
    temporary_name,
)
from pacs_ai.quarantine import Quarantine

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
        # To make the text of a Path costs more than the calls that take it.
        self._path_text, self._temporary_text = str(path), str(self.temporary)
        self.quarantine = Quarantine(path / "quarantine")
        self._aside = path / "removed"
        self._buffers: list[Buffer] = []
        try:
            # The folder above holds the ledger too.
            for folder in (path.parent, *self.folders(path)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SpoolError(
                f"{error.filename} cannot be made or is no folder ({error.strerror}): pacs-ai check says more"
            ) from error
        # What is in a folder is as durable as the folder's own name, whoever made it.
        for folder in (path.parent.parent, path.parent, path):
            with suppress(PermissionError):  # the first may be another's, and was there before
                sync_folder(folder)

    @staticmethod
    def folders(path: Path) -> tuple[Path, ...]:
        """Return the folders of a spool, itself first; whoever runs the gateway has to write into each."""
        return (path, *(path / name for name in ("tmp", "removed", "instances", "results")))

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

    def open_temporary(self) -> tuple[int, str]:
        """Open a new file; return its descriptor, and its path where it has to have one."""
        return open_temporary(self._temporary_text)

    def lend(self) -> Buffer:
        """Return a buffer; what it held before may still stand in it."""
        try:
            return self._buffers.pop()
        except IndexError:
            return Buffer(BUFFER)

    def take_back(self, buffer: Buffer) -> None:
        """Keep a buffer for another; its last user writes no more into it."""
        if not buffer.under_way and len(self._buffers) < _SPARE:
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
        return disk_of(self._path_text)


def parts_of(file: Path) -> tuple[str, str]:
    """Return digest and Transfer Syntax UID that a file is named by; results of Jobs have no syntax."""
    digest, _, syntax = file.stem.partition(".")
    return digest, syntax


class Writer:
    """An Instance on its way into the spool: File Meta first, then the data set byte for byte.

    One that fits into the buffer is given to the disk when it is whole, and hashed while the disk is at work.
    Of a larger one, the disk gets each buffer as it is full.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._named = False
        self._hash = hashlib.sha256()
        self._size = 0
        self._meta = 0
        self._held = self._hashed = self._written = 0
        try:
            descriptor, self._temporary = spool.open_temporary()
        except OSError as error:
            raise SpoolFullError(_CANNOT) from error
        self._file: int | None = descriptor
        self._buffer = spool.lend()
        self._room = self._buffer.view

    def begin(self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        """Begin the file with preamble and File Meta Information (PS3.10 section 7.1)."""
        instance = sop_instance_uid.encode("ascii")
        before, after = around(sop_class_uid, len(instance), transfer_syntax_uid)
        meta = before + instance + after
        self._meta = self._held = self._hashed = len(meta)
        self._room[: self._held] = meta

    def write(self, view: bytes | memoryview) -> None:
        """Add bytes of the data set.

        Raises
        ------
        SpoolFullError
            When the disk does not take what came.
        """
        self._check()
        size = len(view)
        place = self.room(size)
        if place is None:
            self._flush()
            place = self.room(size)
        if place is not None:
            place[:] = view
            return
        self._size += size
        self._give_and_begin(view)
        self._hash.update(view)

    def room(self, size: int) -> memoryview | None:
        """Return where the next bytes of the data set go, so many; None when they have to be written.

        They count as come: who cannot put them there discards the Instance.
        """
        start, end = self._held, self._held + size
        if end > BUFFER:
            return None
        self._held = end
        self._size += size
        return self._room[start:end]

    def _flush(self) -> None:
        """Give the disk what is held; it begins with all but the last page, which would be written twice."""
        self._give_and_begin(self._room[: self._held])
        self._hash_and_empty()

    def _give_and_begin(self, data: memoryview | bytes) -> None:
        start = self._written & -_PAGE
        self._give(data)
        end = self._written & -_PAGE
        if end > start:
            start_writing(cast("int", self._file), start, end)

    def _hash_held(self) -> None:
        self._hash.update(self._room[self._hashed : self._held])
        self._hashed = self._held

    def _hash_and_empty(self) -> None:
        self._hash_held()
        self._held = self._hashed = 0

    def _check(self) -> None:
        if self._file is None:
            raise SpoolFullError(_CANNOT)

    def _give_up(self, error: OSError) -> NoReturn:
        """Keep nothing, whatever is asked next: what is in the file is not what came."""
        self.discard()
        raise SpoolFullError(_CANNOT) from error

    def _give(self, data: memoryview | bytes) -> None:
        try:
            _write_all(cast("int", self._file), data, self._written)
        except OSError as error:
            self._give_up(error)
        self._written += len(data)

    def _give_rest(self) -> None:
        """Give the disk all that is held; what can go past the page cache is under way afterwards."""
        if not self._held:
            return
        descriptor = cast("int", self._file)
        held, whole = self._room[: self._held], self._held & -_PAGE
        if not self._written and whole >= DIRECT:
            try:
                # A write that makes a file longer is waited for, and this one need not be.
                os.ftruncate(descriptor, self._held)
            except OSError as error:
                self._give_up(error)
            if self._buffer.begin(descriptor, whole):
                self._written, held = whole, held[whole:]
        start = self._written & -_PAGE
        self._give(held)
        if self._hashed < self._held and start < self._written:  # what is hashed is synced now
            start_writing(descriptor, start, self._written)
        self._hash_and_empty()

    def _complete(self) -> None:
        """See to it that all is written, and wait for what is under way past the page cache."""
        self._give_rest()
        asked = self._buffer.under_way
        if asked and (written := self._buffer.finish()) < asked:
            _write_all(cast("int", self._file), self._room[written:asked], written)

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
        self._check()
        if not self._written:
            return bytes(self._room[self._meta : min(self._held, self._meta + size)])
        self._flush()
        try:
            self._complete()
            return os.pread(cast("int", self._file), size, self._meta)
        except OSError as error:
            self._give_up(error)

    def digest(self) -> str:
        """Return the SHA-256 of the data set's bytes, hexadecimal; the disk writes them meanwhile.

        Raises
        ------
        SpoolFullError
            When the disk does not take them.
        """
        self._check()
        if self._written or self._held >= DIRECT:
            self._give_rest()
        else:  # a small one takes no time to write, and may be a duplicate
            self._hash_held()
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Make the bytes durable.

        Raises
        ------
        SpoolFullError
            When a write or sync failed: the file is bad and nothing of it is kept.
        """
        self._check()
        try:
            self._complete()
            failpoint("receive.written")
            os.fsync(cast("int", self._file))
        except OSError as error:
            self._give_up(error)
        failpoint("receive.synced")

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
        self._file, self._temporary = self._spool.open_temporary()
        try:
            place, size = 0, os.fstat(lost).st_size
            while place < size:
                place += os.sendfile(self._file, lost, place, size - place)
        finally:
            os.close(lost)
        os.fsync(self._file)

    def quarantine(self) -> None:
        """Keep what cannot be read for somebody to look at, where the disk takes it; then ``discard``."""
        with suppress(OSError, SpoolFullError):
            self._complete()
            self._spool.quarantine.take(cast("int", self._file), self._source)

    def discard(self) -> None:
        """Forget what has no name; safe to call twice."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._held = BUFFER + 1  # there is no room: the buffer is another's
        if self._buffer.under_way:
            with suppress(OSError):
                self._buffer.finish()
        self._spool.take_back(self._buffer)
        with suppress(OSError):
            os.close(file)
        if self._temporary:
            with suppress(FileNotFoundError):
                Path(self._temporary).unlink()

    @property
    def _source(self) -> str:
        return self._temporary or f"/proc/self/fd/{self._file}"


def start_writing(descriptor: int, start: int, end: int) -> None:
    """Let the disk begin with these bytes, and wait for nothing (sync_file_range(2), Linux).

    It promises nothing: the sync that follows does, and has less to wait for.
    """
    _sync_file_range(descriptor, start, end - start, _SYNC_FILE_RANGE_WRITE)


def _write_all(descriptor: int, data: bytes | memoryview, place: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, place)
        view, place = view[count:], place + count


class Disk(NamedTuple):
    """A file system: bytes in all, and those left to the gateway's user."""

    total: int
    free: int


def disk_of(folder: Path | str) -> Disk:
    """Return the file system that a folder is on."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
