"""The n-th write, sync, link or commit fails, for n = 1, 2, … until a run passes clean: all or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from pacs_ai.cli.files import data_set_bytes
from pacs_ai.direct import Buffer
from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Reading
from pacs_ai.spool import BUFFER, DIRECT
from pacs_ai.web.app import create_app
from pacs_ai.web.guard import Guard
from pacs_ai.web.store import Store
from tests.integration.listening import Listening, encoded, image, listening, make_settings
from tests.integration.listening import store as over_the_wire
from tests.integration.test_stow import MULTIPART, body_of, file_of

STEPS = {"open", "write", "fsync file", "mkdir", "fsync parent", "link", "fsync folder", "commit"}
"""Everything that an Instance on its way in asks of the disk."""
PAST_CACHE = {"truncate", "write past the page cache"}
"""And besides, where it is not small and fits into one buffer."""

SIZES = [20_000, 2 * DIRECT, 3 * BUFFER]
"""Bytes of pixels: written at once, past the page cache, and while more of it comes."""


@dataclass
class Disk:
    """Counts what is asked of the disk below a folder, and refuses the one that a test names.

    A file whose sync failed is kept open, so that no other can take its number.
    """

    spool: Path
    error: int
    fail_at: int = 0
    steps: list[str] = field(default_factory=list)
    failed: str = ""
    bad: dict[tuple[int, int], int] = field(default_factory=dict)

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self.fail_at:
            self.failed = name
            raise OSError(self.error, os.strerror(self.error))

    def step_at(self, path: Path, name: str) -> None:
        if self.spool in path.parents:
            self.step(name)

    def arm(self, number: int) -> None:
        self.fail_at, self.steps, self.failed = number, [], ""

    def pin(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self.bad[found.st_dev, found.st_ino] = descriptor

    def fsync(self, descriptor: int, real: Callable[[int], None]) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self.spool not in path.parents:
            return real(descriptor)
        kind = "file" if not path.is_dir() else "parent" if path.name == "instances" else "folder"
        found = os.fstat(descriptor)
        assert (found.st_dev, found.st_ino) not in self.bad, "synced again after a sync that failed"
        try:
            self.step(f"fsync {kind}")
        except OSError:
            # No name in a folder whose sync failed is durable either.
            if kind == "file":
                self.pin(os.dup(descriptor))
            else:
                for bad in path.glob("*.dcm"):
                    self.pin(os.open(bad, os.O_RDONLY))
            raise
        return real(descriptor)


def _patch_writes(patched: pytest.MonkeyPatch, disk: Disk) -> None:
    finish, truncate, write = Buffer.finish, os.ftruncate, os.pwrite

    def write_(descriptor: int, data: Any, place: int) -> int:
        disk.step_at(Path(f"/proc/self/fd/{descriptor}").readlink(), "write")
        return write(descriptor, data, place)

    def truncate_(descriptor: int, size: int) -> None:
        disk.step_at(Path(f"/proc/self/fd/{descriptor}").readlink(), "truncate")
        truncate(descriptor, size)

    def finish_(buffer: Buffer) -> int:
        written = finish(buffer)
        disk.step("write past the page cache")
        return written

    patched.setattr(os, "pwrite", write_)
    patched.setattr(os, "ftruncate", truncate_)
    patched.setattr(Buffer, "finish", finish_)


@contextmanager
def failing(listener: Listening, error: int) -> Iterator[Disk]:
    """Put a disk that can fail below the spool, and a ledger that can fail with it."""
    disk = Disk(listener.gateway.spool.path, error)
    fsync, link, mkdir, opened = os.fsync, os.link, Path.mkdir, os.open

    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE:
            disk.step_at(Path(path), "open")
        return opened(path, flags, *rest, **more)

    def link_(source: str, name: str, **how: Any) -> None:
        disk.step("link")
        link(source, name, **how)

    def mkdir_(path: Path, **how: Any) -> None:
        disk.step("mkdir")
        mkdir(path, **how)

    def commit(connection: Connection) -> None:
        if not connection.get_execution_options().get("writes"):
            return
        try:
            disk.step("commit")
        except OSError as refused:
            raise OperationalError("COMMIT", {}, refused) from refused

    engine = listener.gateway.ledger.database.engine
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: disk.fsync(descriptor, fsync))
        patched.setattr(os, "link", link_)
        patched.setattr(os, "open", open_)
        _patch_writes(patched, disk)
        patched.setattr(Path, "mkdir", mkdir_)
        event.listen(engine, "commit", commit)
        yield disk
        event.remove(engine, "commit", commit)
    for descriptor in disk.bad.values():
        os.close(descriptor)


Face = Callable[[Dataset], int]
"""Sends one Instance and returns its status, or its Failure Reason."""


def _c_store(listener: Listening) -> Face:
    def store(data_set: Dataset) -> int:
        return int(over_the_wire(listener.port, data_set).Status)

    return store


def _stow(listener: Listening) -> Face:
    gateway = listener.gateway
    tokens = Tokens(gateway.ledger.database)
    token, _ = tokens.create("pacs", scope=Scope.STOW, lifetime=timedelta(days=1), actor="test")
    guard = Guard(tokens, Reading.OPEN)
    app = create_app(Views(gateway.ledger.database), guard, Store(gateway, guard, tokens))
    client = TestClient(app, base_url="http://127.0.0.1")

    def store(data_set: Dataset) -> int:
        headers = {"Content-Type": MULTIPART, "Authorization": f"Bearer {token}"}
        body = body_of(file_of(data_set))
        answer = client.post("/dicom-web/studies", content=body, headers=headers)
        if answer.status_code == 200:
            return 0
        assert answer.status_code == 503, "out of resources, and told to come again"
        reasons = [one["00081197"]["Value"][0] for one in answer.json()["00081198"]["Value"]]
        return int(reasons[0])

    return store


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("face", [_c_store, _stow])
def test_whatever_the_disk_refuses_is_a700_and_leaves_nothing_half_stored(
    face: Callable[[Listening], Face], error: int, size: int, tmp_path: Path
) -> None:
    with listening(make_settings(tmp_path)) as listener, failing(listener, error) as disk:
        store = face(listener)
        refused: set[str] = set()
        for number in range(1, 40):
            data_set = _for_a_new_folder(listener, size)
            disk.arm(number)
            status = store(data_set)
            if not disk.failed:
                assert status == 0x0000
                break
            if status == 0x0000:  # stored; only the summary of the token's use was not written
                assert (disk.failed, face, disk.steps[-2:]) == ("commit", _stow, ["commit"] * 2)
                _assert_stored(listener, data_set, disk)
                continue
            refused.add(disk.failed)
            assert status == 0xA700, disk.failed
            _assert_nothing_half_stored(listener, data_set, disk)
            believed = disk.failed not in ("mkdir", "fsync parent")
            disk.arm(0)
            assert store(data_set) == 0x0000, "the next try finds nothing in its way"
            _assert_stored(listener, data_set, disk)
            assert believed or "fsync parent" in disk.steps, "a folder nobody synced was believed"
        else:
            pytest.fail("no run passed clean")
        assert refused == (STEPS | PAST_CACHE if DIRECT <= size < BUFFER else STEPS)


def _for_a_new_folder(listener: Listening, size: int) -> Dataset:
    while True:
        made = image(PixelData=bytes(size), BitsAllocated=16, PixelRepresentation=0)
        digest = hashlib.sha256(encoded(made)).hexdigest()
        if not listener.gateway.spool.instance_path(digest, "").parent.exists():
            return made


def _assert_nothing_is_left(listener: Listening, disk: Disk) -> None:
    until = time.monotonic() + 5  # a temporary file outlives its answer by a moment
    pinned = {f"#{inode} (deleted)" for _, inode in disk.bad}  # kept open by this test alone
    while left := [one for one in listener.temporary() if one.name not in pinned]:
        assert time.monotonic() < until, left
        time.sleep(0.01)


def _assert_nothing_half_stored(listener: Listening, data_set: Dataset, disk: Disk) -> None:
    _assert_nothing_is_left(listener, disk)
    assert data_set.SOPInstanceUID not in {one["SOPInstanceUID"] for one in listener.instances()}
    for path in listener.files():
        # A file that has its name already is whole; the next try finds it.
        digest = hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest()
        assert path.name.startswith(digest)


def _assert_stored(listener: Listening, data_set: Dataset, disk: Disk) -> None:
    _assert_nothing_is_left(listener, disk)
    (row,) = (
        one for one in listener.instances() if one["SOPInstanceUID"] == data_set.SOPInstanceUID
    )
    (path,) = (one for one in listener.files() if one.name.startswith(row["digest"]))
    found = path.stat()
    assert (found.st_dev, found.st_ino) not in disk.bad, "a file or name whose sync failed was used"
