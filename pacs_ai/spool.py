"""Where bytes rest: received Instances, results, and the SOP Instances the gateway made.

A name is the SHA-256 of what it holds. Bytes are written to a temporary file on the same file system,
synced, linked under their name and the folder synced, before anyone is told that they are safe.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from pacs_ai.errors import SpoolError, TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

TEMPORARY_AGE = 3600.0
"""Seconds after which a temporary file belongs to nobody any more."""


_SYNCED: set[Path] = set()
"""Folders whose own name this process made durable; one that another has just made may not be yet."""


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
        self.temporary = path / "tmp"
        # The folder above holds the ledger too.
        for folder in (path.parent, path, self.temporary, path / "instances", path / "results"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def instance_path(self, digest: str, transfer_syntax_uid: str) -> Path:
        """Return where an Instance rests: named by the digest of its data set, and its encoding."""
        return self.path / "instances" / digest[:2] / f"{digest}.{transfer_syntax_uid}.dcm"

    def results_path(self, digest: str) -> Path:
        """Return where the results of a Job rest."""
        return self.path / "results" / f"{digest}.json"

    def writer(self) -> Writer:
        """Open a temporary file for bytes that are coming in."""
        return Writer(self)

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
            link(temporary, path)
        except OSError as error:
            raise SpoolFullError("the spool cannot be written: check its disk") from error
        finally:
            temporary.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove temporary files whose process is gone, or that are an hour old; return how many."""
        limit = time.time() - TEMPORARY_AGE
        removed = 0
        for file in self.temporary.iterdir():
            with suppress(FileNotFoundError):
                if _owner_is_gone(file) or file.stat().st_mtime <= limit:
                    file.unlink()
                    removed += 1
        return removed

    def sync_folders_of(self, paths: Iterable[Path]) -> None:
        """Make durable that files are gone from their folders."""
        for folder in {path.parent for path in paths}:
            if folder.is_dir():
                sync_folder(folder)

    def free_bytes(self) -> int:
        """Return how many bytes the spool's file system has left."""
        return disk_of(self.path).free

    def disk_bytes(self) -> int:
        """Return how many bytes the spool's file system has in all."""
        return disk_of(self.path).total


class Writer:
    """An Instance on its way into the spool: File Meta first, then the data set byte for byte."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._path = spool.temporary / temporary_name()
        self._hash = hashlib.sha256()
        self._size = 0
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise SpoolFullError("the spool cannot be written: check its disk") from error

    def begin(self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> None:
        """Write preamble and File Meta Information (PS3.10 section 7.1)."""
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = UID(sop_class_uid)
        meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
        meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        head = DicomBytesIO()
        write_file_meta_info(head, meta, enforce_standard=True)
        try:
            self._file.write(b"\x00" * 128 + b"DICM" + head.getvalue())
        except OSError as error:
            raise SpoolFullError("the spool cannot be written: check its disk") from error

    def write(self, view: bytes | memoryview) -> None:
        """Add bytes of the data set."""
        try:
            self._file.write(view)
        except OSError as error:
            raise SpoolFullError("the spool cannot be written: check its disk") from error
        self._hash.update(view)
        self._size += len(view)

    @property
    def size(self) -> int:
        """Bytes of the data set so far."""
        return self._size

    @property
    def digest(self) -> str:
        """SHA-256 of the data set's bytes so far."""
        return self._hash.hexdigest()

    def keep(self, transfer_syntax_uid: str) -> Path:
        """Make the file durable under its name; the order is the promise.

        Raises
        ------
        SpoolFullError
            When a write or sync failed: the file is bad and nothing of it is kept.
        """
        path = self._spool.instance_path(self.digest, transfer_syntax_uid)
        try:
            self._file.flush()
            failpoint("receive.written")
            os.fsync(self._file.fileno())
            self._file.close()
            failpoint("receive.synced")
            link(self._path, path)
        except OSError as error:
            raise SpoolFullError("the spool cannot be written: check its disk") from error
        finally:
            self.discard()
        failpoint("receive.linked")
        return path

    def discard(self) -> None:
        """Forget the bytes; safe to call twice."""
        with suppress(OSError):  # a full disk refuses even what was still in the buffer
            self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: bytes in all, and those left to the gateway's user."""

    total: int
    free: int


def disk_of(folder: Path) -> Disk:
    """Return the file system that a folder is on."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def temporary_prefix() -> str:
    """Return how the names of this process's temporary files begin."""
    return f"{os.getpid()}."


def temporary_name() -> str:
    """Return a new name for a temporary file: whose it is, and which."""
    return temporary_prefix() + str(uuid.uuid4())


def _owner_is_gone(file: Path) -> bool:
    owner = file.name.partition(".")[0]
    return owner.isdigit() and not Path("/proc", owner).exists()


def link(temporary: Path, path: Path) -> None:
    """Give a synced file its name, and sync the folder, so that the name survives a power cut.

    A name that is there already may stem from a sync that failed, and a second sync could say "done" of
    what was lost by the first: it is replaced, by a name of the same bytes that this process has synced.
    """
    _make_folder(path.parent)
    try:
        os.link(temporary, path)
    except FileExistsError:
        temporary.replace(path)
    sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if folder in _SYNCED and folder.is_dir():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        sync_folder(folder.parent)
    except OSError:
        with suppress(OSError):  # an empty one is made anew, not synced again
            folder.rmdir()
        raise
    _SYNCED.add(folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
