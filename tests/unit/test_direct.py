"""What the disk reads by itself is what was in the memory, or it is said that it is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pacs_ai import direct
from pacs_ai.direct import Buffer

SIZE = 64 * 4096


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(opened, SIZE)
    yield opened
    os.close(opened)


def filled() -> Buffer:
    buffer = Buffer(SIZE)
    buffer.view[:] = np.random.default_rng(1).bytes(SIZE)
    return buffer


def test_what_was_begun_is_in_the_file_when_it_is_finished(descriptor: int) -> None:
    buffer = filled()
    assert buffer.begin(descriptor, SIZE)
    assert buffer.under_way == SIZE
    assert buffer.finish() == SIZE
    assert buffer.under_way == 0
    assert os.pread(descriptor, SIZE + 1, 0) == bytes(buffer.view)


def test_a_buffer_can_be_used_again(descriptor: int) -> None:
    buffer = filled()
    assert buffer.begin(descriptor, SIZE)
    buffer.finish()
    buffer.view[:] = bytes(SIZE)
    assert buffer.begin(descriptor, SIZE)
    assert buffer.finish() == SIZE
    assert os.pread(descriptor, SIZE, 0) == bytes(SIZE)


def test_afterwards_the_file_is_written_through_the_page_cache_again(descriptor: int) -> None:
    buffer = filled()
    assert buffer.begin(descriptor, SIZE)
    assert os.pwrite(descriptor, b"odd", 1) == 3
    buffer.finish()


def test_what_is_not_whole_pages_is_not_written(descriptor: int) -> None:
    buffer = filled()
    assert not buffer.begin(descriptor, 100) or buffer.finish() == 0


def test_a_file_that_cannot_be_written_is_not_begun(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    opened = os.open(file, os.O_RDONLY)
    buffer = filled()
    assert not buffer.begin(opened, SIZE)
    assert buffer.under_way == 0
    os.close(opened)
    assert file.read_bytes() == b"kept"


def test_a_file_system_that_knows_only_the_page_cache_is_told_of(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(direct, "fcntl", refuse)
    assert not filled().begin(descriptor, SIZE)


def test_a_kernel_that_does_not_know_the_call_is_told_of(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_queues", [])
    monkeypatch.setattr(direct, "_io_setup", direct._call(-1, direct.ctypes.c_uint))
    assert not filled().begin(descriptor, SIZE)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_what_the_disk_refuses_is_an_error(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    buffer = filled()
    assert buffer.begin(descriptor, SIZE)
    real = direct._io_getevents

    def refused(*arguments: object) -> int:
        found: int = real(*arguments)
        direct._OUTCOME.pack_into(buffer._outcome, 0, 0, 0, -error, 0)
        return found

    monkeypatch.setattr(direct, "_io_getevents", refused)
    with pytest.raises(OSError, match=os.strerror(error)):
        buffer.finish()
    assert buffer.under_way == 0, "its memory is free again"


def test_a_call_that_a_signal_ended_is_made_again(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = filled()
    assert buffer.begin(descriptor, SIZE)
    real, calls = direct._io_getevents, []

    def interrupted(*arguments: object) -> int:
        calls.append(arguments)
        if len(calls) == 1:
            direct.ctypes.set_errno(errno.EINTR)
            return -1
        found: int = real(*arguments)
        return found

    monkeypatch.setattr(direct, "_io_getevents", interrupted)
    assert buffer.finish() == SIZE
    assert len(calls) == 2


def test_the_kernels_queues_are_as_many_as_there_are_writes_at_once(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_queues", [])
    real, made = direct._io_setup, []

    def setup(*arguments: object) -> int:
        made.append(arguments)
        answer: int = real(*arguments)
        return answer

    monkeypatch.setattr(direct, "_io_setup", setup)
    for _ in range(3):
        several = [filled(), filled()]
        assert all(one.begin(descriptor, SIZE) for one in several)
        assert [one.finish() for one in several] == [SIZE, SIZE]
    assert len(made) == 2
