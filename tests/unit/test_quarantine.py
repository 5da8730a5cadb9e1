"""What cannot be read is set aside for a while: few files, small, private, and soon gone."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs_ai import quarantine
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Receipt, Refused, Stored
from tests.integration.listening import CT, encoded, image, make_settings
from tests.unfinished import without_nameless_files

SYNTAX = "1.2.840.10008.1.2.1"
PATIENT = b"Doe^Jane"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(make_settings(tmp_path, maximum_object="4MB"))
    yield made
    made.close()


def send(gateway: Gateway, data: bytes, uid: str = "1.2.3") -> Receipt:
    incoming = gateway.incoming("modality", Context(CT, uid, SYNTAX))
    incoming.write(data)
    answer = incoming.commit()
    incoming.discard()
    return answer


def assert_refused(answer: Receipt, status: int = 0xC000) -> None:
    assert isinstance(answer, Refused)
    assert answer.status == status


def kept(gateway: Gateway) -> list[Path]:
    return sorted(gateway.spool.path.glob("quarantine/*"))


@pytest.mark.parametrize("size", [100, 300_000, 3_000_000])
def test_an_unreadable_data_set_is_set_aside_whole_and_private(gateway: Gateway, size: int) -> None:
    data = (PATIENT * size)[:size]
    assert_refused(send(gateway, data))
    (path,) = kept(gateway)
    assert path.read_bytes()[-size:] == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "Doe" not in path.name
    assert "1.2.3" not in path.name


def test_where_no_file_is_without_a_name_it_is_set_aside_too(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nameless_files(monkeypatch)
    assert_refused(send(gateway, PATIENT))
    assert len(kept(gateway)) == 1
    assert [*gateway.spool.temporary.iterdir()] == []


def test_what_is_too_large_mismatched_or_stored_is_not_set_aside(gateway: Gateway) -> None:
    data_set = image()
    assert_refused(send(gateway, bytes(5_000_000)))
    assert_refused(send(gateway, encoded(data_set), "1.2.3"), 0xA900)
    assert isinstance(send(gateway, encoded(data_set), str(data_set.SOPInstanceUID)), Stored)
    assert kept(gateway) == []


def test_the_oldest_make_room_by_number(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "FILES", 3)
    for number in range(5):
        send(gateway, b"%d" % number * 10)
    assert [path.read_bytes()[-1:] for path in kept(gateway)] == [b"2", b"3", b"4"]


def test_the_oldest_make_room_by_size_and_one_is_cut(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "BYTES", 100_000)
    monkeypatch.setattr(quarantine, "BEGINNING", 60_000)
    for size in (30_000, 30_000, 500_000):
        send(gateway, PATIENT * (size // 8))
    found = [path.stat().st_size for path in kept(gateway)]
    assert len(found) == 2
    assert found[-1] == 60_000
    assert sum(found) <= 100_000


def test_after_a_week_it_is_swept(gateway: Gateway) -> None:
    for _ in range(2):
        send(gateway, PATIENT)
    old, young = kept(gateway)
    at = time.time() - quarantine.AGE.total_seconds() - 1
    os.utime(old, (at, at))
    gateway.spool.sweep()
    assert kept(gateway) == [young]


def test_a_disk_that_does_not_take_it_changes_no_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        assert_refused(send(gateway, PATIENT))
    assert kept(gateway) == []
