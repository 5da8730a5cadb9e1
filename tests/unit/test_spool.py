"""Bytes are safe before anyone is told so, in the order of the promise, or nothing of them is kept."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacs_ai.cli.files import data_set_bytes
from pacs_ai.direct import Buffer
from pacs_ai.errors import SpoolError, TransientError
from pacs_ai.naming import temporary_name
from pacs_ai.spool import BUFFER, DIRECT, Spool, SpoolFullError, Writer
from pacs_ai.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.unfinished import without_nameless_files

SYNTAX = "1.2.840.10008.1.2.1"
DATA = b"a data set, which the spool never reads" * 10
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "data" / "spool")


def begun(spool: Spool, data: bytes = DATA) -> Writer:
    writer = spool.writer()
    writer.begin(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.4", transfer_syntax_uid=SYNTAX)
    writer.write(data)
    return writer


def keep(spool: Spool, writer: Writer, syntax: str = SYNTAX) -> Path:
    """Make what came durable, name and all; return where it rests."""
    path = spool.instance_path(writer.digest(), syntax)
    try:
        writer.sync()
        writer.name(str(path))
        writer.hold_name(str(path))
    finally:
        writer.discard()
    return path


def files(spool: Spool) -> list[Path]:
    return [one for one in spool.path.rglob("*") if one.is_file()]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---------------------------------------------------------------------- received Instances


def test_the_spools_own_folders_are_durable_before_anything_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Spool(tmp_path / "data" / "spool")
    folders = (tmp_path, tmp_path / "data", tmp_path / "data" / "spool")
    assert synced == [str(one) for one in folders]


def test_a_kept_instance_is_a_dicom_file_around_the_same_bytes(spool: Spool) -> None:
    path = keep(spool, begun(spool))
    assert path == spool.instance_path(DIGEST, SYNTAX)
    meta = pydicom.filereader.read_file_meta_info(path)
    assert meta.MediaStorageSOPClassUID == "1.2.3"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == SYNTAX
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert path.read_bytes()[132 + 12 + meta.FileMetaInformationGroupLength :] == DATA
    assert data_set_bytes(path.read_bytes()) == DATA


def test_pieces_make_the_same_file_as_the_whole(spool: Spool) -> None:
    writer = begun(spool, b"")
    for start in range(0, len(DATA), 7):
        writer.write(memoryview(DATA)[start : start + 7])
    assert writer.size == len(DATA)
    assert writer.digest() == DIGEST
    assert data_set_bytes(keep(spool, writer).read_bytes()) == DATA


PIECE = 64 * 1024
META = 132 + 12 + 190
"""About so many bytes stand before the data set; the sizes below are on both sides of each limit."""

SIZES = [
    *(0, 1, PIECE - 1, PIECE, DIRECT - META - 300, DIRECT, DIRECT + 4096, 500_001),
    *(BUFFER - META - 300, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 3 * BUFFER + 5000),
]


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.mark.parametrize("piece", [16_370, 131_060, 3 * BUFFER], ids=["short", "usual", "whole"])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_what_came(spool: Spool, size: int, piece: int) -> None:
    former = begun(spool, b"\xff" * BUFFER)  # what another has left in the buffer is nowhere
    former.discard()
    data = noise(size)
    writer = begun(spool, b"")
    for start in range(0, size, piece):
        writer.write(memoryview(data)[start : start + piece])
    assert writer.beginning(PIECE) == data[:PIECE]
    assert writer.beginning(BUFFER) == data[:BUFFER]
    assert writer.digest() == hashlib.sha256(data).hexdigest()
    assert data_set_bytes(keep(spool, writer).read_bytes()) == data


def test_whole_pages_go_past_the_page_cache_and_the_rest_through_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_with: list[int] = []
    real = Buffer.begin

    def begin(buffer: Buffer, descriptor: int, size: int) -> bool:
        begun_with.append(size)
        return real(buffer, descriptor, size)

    monkeypatch.setattr(Buffer, "begin", begin)
    written = written_through_the_page_cache(monkeypatch)
    path = keep(spool, begun(spool, noise(500_001)))
    whole = path.stat().st_size & -4096
    assert begun_with == [whole]
    assert written == [(path.stat().st_size - whole, whole)]


def test_a_file_system_that_knows_only_the_page_cache_keeps_the_same(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Buffer, "begin", lambda *_: False)
    written = written_through_the_page_cache(monkeypatch)
    data = noise(500_001)
    path = keep(spool, begun(spool, data))
    assert data_set_bytes(path.read_bytes()) == data
    assert written == [(path.stat().st_size, 0)]


@pytest.mark.parametrize("written", [0, 4096, 100_000])
def test_what_was_not_written_past_the_page_cache_is_written_through_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    real = Buffer.finish

    def finish(buffer: Buffer) -> int:
        real(buffer)
        return written

    monkeypatch.setattr(Buffer, "finish", finish)
    through = written_through_the_page_cache(monkeypatch)
    data = noise(500_001)
    path = keep(spool, begun(spool, data))
    assert data_set_bytes(path.read_bytes()) == data
    whole = path.stat().st_size & -4096
    assert through[-1] == (whole - written, written)


def written_through_the_page_cache(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note how many bytes are written from here on, and to where."""
    written: list[tuple[int, int]] = []
    real = os.pwrite

    def write(descriptor: int, data: memoryview, place: int) -> int:
        written.append((len(data), place))
        return real(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", write)
    return written


@pytest.mark.parametrize("where", ["past", "through", "longer"])
def test_a_disk_that_refuses_a_write_keeps_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    writer = begun(spool, noise(500_001))
    if where == "past":
        monkeypatch.setattr(Buffer, "finish", full)
    else:
        monkeypatch.setattr(os, "pwrite" if where == "through" else "ftruncate", full)
    with pytest.raises(SpoolFullError):
        keep(spool, writer)
    monkeypatch.undo()
    writer.discard()
    assert files(spool) == []


def test_what_could_not_be_written_once_is_never_taken_for_written(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begun(spool, noise(500_001))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(SpoolFullError):
            writer.digest()
    for again in (
        writer.digest,
        writer.sync,
        lambda: writer.beginning(1),
        lambda: writer.write(b"x"),
    ):
        with pytest.raises(SpoolFullError):
            again()
    assert writer.room(1) is None, "its memory is another's"
    assert files(spool) == []


def test_the_memory_of_a_write_under_way_is_nobody_elses(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[int] = []
    real = Buffer.finish

    def finish(buffer: Buffer) -> int:
        finished.append(buffer.under_way)
        return real(buffer)

    monkeypatch.setattr(Buffer, "finish", finish)
    writer = begun(spool, noise(500_001))
    writer.digest()
    writer.discard()
    assert len(finished) == 1
    assert finished[0] > 0
    following = begun(spool)
    assert following._buffer is writer._buffer
    following.discard()


def test_the_order_is_write_sync_link_sync_folder(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = record(monkeypatch)
    keep(spool, begun(spool))
    instances = spool.path / "instances"
    assert (
        steps
        == [
            ("fsync", f"file of {len(DATA)} bytes and more"),
            ("fsync", str(instances)),  # the new folder's own name
            ("link", str(spool.instance_path(DIGEST, SYNTAX))),
            ("fsync", str(instances / DIGEST[:2])),
        ]
    )


def test_a_folder_that_another_process_made_is_not_believed_to_be_durable(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.instance_path(DIGEST, SYNTAX).parent.mkdir()
    steps = record(monkeypatch)
    keep(spool, begun(spool))
    assert ("fsync", str(spool.path / "instances")) in steps


def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Note every fsync and link from here on, and what had reached the kernel by then."""
    steps: list[tuple[str, str]] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            steps.append(("fsync", str(path)))
        else:
            assert os.fstat(descriptor).st_size > len(DATA), "synced before it was written"
            steps.append(("fsync", f"file of {len(DATA)} bytes and more"))
        real_fsync(descriptor)

    def link(source: str, name: str, *, dst_dir_fd: int, follow_symlinks: bool) -> None:
        folder = Path(f"/proc/self/fd/{dst_dir_fd}").readlink()
        steps.append(("link", str(folder / name)))
        real_link(source, name, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    return steps


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_refuses_keeps_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    writer = begun(spool)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(SpoolFullError):
        keep(spool, writer)
    assert files(spool) == []


def test_a_file_whose_sync_failed_is_never_synced_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a failed fsync the kernel may call the next one a success (reliability.md §1.11).
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    writer = begun(spool)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SpoolFullError):
        keep(spool, writer)
    assert len(calls) == 1


def test_a_full_disk_may_be_tried_again_later() -> None:
    assert issubclass(SpoolFullError, TransientError)


def test_the_same_bytes_twice_are_one_file(spool: Spool) -> None:
    first, second = keep(spool, begun(spool)), keep(spool, begun(spool))
    assert first == second
    assert files(spool) == [first]


def test_the_same_bytes_in_another_syntax_are_another_instance(spool: Spool) -> None:
    other = keep(spool, begun(spool), "1.2.840.10008.1.2.4.50")
    assert other != keep(spool, begun(spool))
    assert len(files(spool)) == 2


def test_a_name_that_another_file_has_is_left_to_it_until_it_is_held(spool: Spool) -> None:
    path = keep(spool, begun(spool))
    first = path.stat().st_ino
    writer = begun(spool)
    writer.sync()
    writer.name(str(path))
    assert path.stat().st_ino == first
    writer.hold_name(str(path))
    writer.discard()
    assert path.stat().st_ino != first, "the first name may stem from a sync that failed"
    assert data_set_bytes(path.read_bytes()) == DATA
    assert [*spool.temporary.iterdir()] == []


@pytest.mark.parametrize("kind", ["nameless", "named"])
def test_a_name_that_was_removed_meanwhile_is_taken_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "named":
        without_nameless_files(monkeypatch)
    writer = begun(spool)
    writer.sync()
    path = spool.instance_path(writer.digest(), SYNTAX)
    writer.name(str(path))
    path.unlink()
    steps = record(monkeypatch)
    writer.hold_name(str(path))
    writer.discard()
    assert data_set_bytes(path.read_bytes()) == DATA
    assert pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID == SYNTAX
    written = [("fsync", f"file of {len(DATA)} bytes and more")] if kind == "nameless" else []
    assert steps == [*written, ("link", str(path)), ("fsync", str(path.parent))]
    assert [*spool.temporary.iterdir()] == []


def test_a_name_that_cannot_be_looked_at_is_refused(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begun(spool)
    writer.sync()
    path = spool.instance_path(writer.digest(), SYNTAX)
    writer.name(str(path))
    with monkeypatch.context() as patched, pytest.raises(SpoolFullError):
        patched.setattr(os, "stat", full)
        writer.hold_name(str(path))
    writer.discard()


def test_what_comes_has_no_name_until_it_is_synced(spool: Spool) -> None:
    writer = begun(spool)
    assert files(spool) == []
    writer.discard()


def test_a_file_system_without_nameless_files_keeps_the_same(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nameless_files(monkeypatch)
    writer = begun(spool)
    assert len([*spool.temporary.iterdir()]) == 1
    assert data_set_bytes(keep(spool, writer).read_bytes()) == DATA
    keep(spool, begun(spool))
    assert len(files(spool)) == 1
    begun(spool).discard()
    assert [*spool.temporary.iterdir()] == []


def test_what_is_discarded_leaves_nothing_and_may_be_discarded_twice(spool: Spool) -> None:
    writer = begun(spool)
    writer.discard()
    writer.discard()
    assert files(spool) == []


def test_a_full_disk_at_the_first_byte_is_told_as_such(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(SpoolFullError):
        spool.writer()


def test_a_disk_that_is_really_full_leaves_nothing(spool: Spool) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = begun(spool, b"")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))  # the kernel refuses more
    try:
        writer.write(DATA * 3)  # is gathered still
        with pytest.raises(SpoolFullError):
            keep(spool, writer)
        writer.discard()
        other = begun(spool)
        with pytest.raises(SpoolFullError):
            other.write(DATA * 10_000)
        other.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert files(spool) == []


def test_files_and_folders_are_for_this_user_alone(spool: Spool) -> None:
    former = os.umask(0)
    try:
        path = keep(spool, begun(spool))
        spool.put_results(b"[]")
    finally:
        os.umask(former)
    assert path.parent.stat().st_mode & 0o077 == 0
    assert spool.path.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------------- what the gateway made


def test_results_come_back_as_they_were_put(spool: Spool) -> None:
    digest = spool.put_results(b"[1, 2]")
    assert digest == hashlib.sha256(b"[1, 2]").hexdigest()
    assert spool.read_results(digest) == b"[1, 2]"
    assert spool.put_results(b"[1, 2]") == digest


def _remove(path: Path) -> None:
    path.unlink()


def _change(path: Path) -> None:
    path.write_bytes(b"[1, 3]")


@pytest.mark.parametrize(
    ("harm", "word"), [(_remove, "missing"), (_change, "changed")], ids=["missing", "changed"]
)
def test_results_that_are_not_what_was_stored_are_refused(
    spool: Spool, harm: Callable[[Path], None], word: str
) -> None:
    digest = spool.put_results(b"[1, 2]")
    harm(spool.results_path(digest))
    with pytest.raises(SpoolError, match=word):
        spool.read_results(digest)


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_result_that_the_disk_refuses_leaves_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, full)
    with pytest.raises(SpoolFullError):
        spool.put_instance(b"x", digest=DIGEST, transfer_syntax_uid=SYNTAX)
    assert files(spool) == []


# ---------------------------------------------------------------------- temporary files


def test_only_temporary_files_that_nobody_writes_any_more_are_swept(spool: Spool) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = spool.temporary / temporary_name()
    orphan = spool.temporary / f"{ended.pid}.half"
    old, young = spool.temporary / "old", spool.temporary / "young"
    for path in (mine, orphan, old, young):
        path.write_bytes(b"half")
    hour_ago = time.time() - 3601
    os.utime(old, (hour_ago, hour_ago))
    assert spool.sweep() == 2
    assert set(files(spool)) == {mine, young}
