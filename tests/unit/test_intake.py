"""The one way in: stored, duplicate or refused, and success only after everything is durable."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Connection, event

from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Duplicate, Incoming, Receipt, Refused, Stored
from pacs_ai.ledger import arrivals
from pacs_ai.ledger.arrivals import Arrival, Recorded
from pacs_ai.ledger.views import Views
from pacs_ai.spool import SpoolFullError, Writer
from tests.integration.listening import CT, encoded, image, make_settings
from tests.peers.postgresql import Cluster

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def gateway(tmp_path: Path, ledger_url: str) -> Iterator[Gateway]:
    settings = make_settings(tmp_path, maximum_object="1MB")
    made = Gateway(settings.model_copy(update={"ledger": ledger_url}))
    yield made
    made.close()


def begin(gateway: Gateway, uid: str, syntax: str = SYNTAX) -> Incoming:
    return gateway.incoming("modality", Context(CT, uid, syntax))


def take_in(gateway: Gateway, data: bytes, uid: str, *, piece: int = 1 << 20) -> Receipt:
    incoming = begin(gateway, uid)
    for start in range(0, len(data), piece):
        incoming.write(data[start : start + piece])
    return ended(incoming)


def ended(incoming: Incoming) -> Receipt:
    answer = incoming.commit()
    incoming.discard()
    return answer


def rows(gateway: Gateway) -> list[dict[str, Any]]:
    return Views(gateway.ledger.database).instances(None)


def files(gateway: Gateway) -> list[Path]:
    return sorted(one for one in gateway.spool.path.rglob("*") if one.is_file())


def test_success_comes_after_file_name_folder_and_ledger_in_this_order(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = image()
    uid = str(data_set.SOPInstanceUID)
    with recorded(gateway, monkeypatch) as steps:
        answer = take_in(gateway, encoded(data_set), uid)
        steps.append("answered")
    assert isinstance(answer, Stored)
    kept = [one for one in steps if one != "fsync parent"]  # of a folder that is new
    assert kept == ["fsync file", "link", "fsync folder", "commit", "answered"]


@contextmanager
def recorded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note each step that makes something durable while the block runs."""
    steps: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        kind = "file" if is_file else "parent" if path.name == "instances" else "folder"
        real_fsync(descriptor)
        steps.append(f"fsync {kind}")

    def link(source: str, name: str, **how: Any) -> None:
        real_link(source, name, **how)
        steps.append("link")

    def commit(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("writes", not options.get("postgresql_readonly")):
            steps.append("commit")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        patched.setattr(os, "link", link)
        event.listen(gateway.ledger.database.engine, "commit", commit)
        yield steps
        event.remove(gateway.ledger.database.engine, "commit", commit)


@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_the_size_of_the_pieces_changes_nothing(gateway: Gateway, piece: int) -> None:
    data_set = image(PixelData=b"\x00" * 64, BitsAllocated=16, PixelRepresentation=0)
    data = encoded(data_set)
    assert isinstance(take_in(gateway, data, str(data_set.SOPInstanceUID), piece=piece), Stored)
    assert [one["digest"] for one in rows(gateway)] == [hashlib.sha256(data).hexdigest()]


def test_the_same_bytes_again_are_a_duplicate_and_change_nothing(gateway: Gateway) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    assert isinstance(take_in(gateway, data, uid), Stored)
    before = rows(gateway), files(gateway)
    assert isinstance(take_in(gateway, data, uid), Duplicate)
    assert (rows(gateway), files(gateway)) == before


def test_a_duplicate_whose_file_was_lost_is_written_again(gateway: Gateway) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    take_in(gateway, data, uid)
    (path,) = files(gateway)
    path.unlink()
    assert isinstance(take_in(gateway, data, uid), Duplicate)
    assert files(gateway) == [path]
    assert len(rows(gateway)) == 1


def test_two_that_come_at_once_are_kept_once(gateway: Gateway) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    first, second = begin(gateway, uid), begin(gateway, uid)
    for one in (first, second):
        one.write(data)
    assert isinstance(ended(first), Stored)
    assert isinstance(ended(second), Duplicate)
    assert len(rows(gateway)) == len(files(gateway)) == 1


def test_a_large_instance_is_refused_without_being_written_to_the_end(gateway: Gateway) -> None:
    incoming = begin(gateway, "1.2.3")
    for _ in range(3):
        incoming.write(bytes(600_000))
    assert sum(one.stat().st_size for one in files(gateway)) < 1_000_000
    answer = ended(incoming)
    assert isinstance(answer, Refused)
    assert answer.status == 0xC000
    assert files(gateway) == []


def test_identity_beyond_the_head_is_not_looked_for(gateway: Gateway) -> None:
    # An element of more than 1 MiB stands before the Series Instance UID.
    data_set = image()
    data_set.add_new(0x00091010, "UN", bytes(1 << 20))
    answer = take_in(gateway, encoded(data_set), str(data_set.SOPInstanceUID))
    assert isinstance(answer, Refused)
    assert answer.status == 0xC000


def test_what_is_discarded_leaves_nothing(gateway: Gateway) -> None:
    incoming = begin(gateway, "1.2.3")
    incoming.write(b"half an Instance")
    incoming.discard()
    assert files(gateway) == []
    assert rows(gateway) == []


def test_a_disk_that_refuses_the_first_byte_leaves_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SpoolFullError("full")

    monkeypatch.setattr(Writer, "begin", full)
    with pytest.raises(SpoolFullError):
        begin(gateway, "1.2.3")
    assert files(gateway) == []


def test_a_reason_for_the_peer_fits_an_error_comment(gateway: Gateway) -> None:
    answers = [
        take_in(gateway, b"nonsense" * 100, "1.2.3"),
        take_in(gateway, encoded(image()), "1.2.3"),
        take_in(gateway, bytes(1_100_000), "1.2.3"),
    ]
    for answer in answers:
        assert isinstance(answer, Refused)
        assert 0 < len(answer.reason) <= 64


def test_while_the_ledgers_server_is_away_the_sender_keeps_what_it_has(
    tmp_path: Path, postgresql: Cluster
) -> None:
    name = postgresql.lend_ledger()
    settings = make_settings(tmp_path).model_copy(update={"ledger": postgresql.url(name)})
    gateway = Gateway(settings)
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    with postgresql.away(name):
        answer = take_in(gateway, data, uid)
        assert isinstance(answer, Refused)
        assert answer.status == 0xA700
    assert rows(gateway) == []
    assert isinstance(take_in(gateway, data, uid), Stored)
    assert [one["SOPInstanceUID"] for one in rows(gateway)] == [uid]
    gateway.close()


def test_instances_that_come_at_once_share_one_transaction_of_the_ledger(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go_on, sizes = arrivals.record, threading.Event(), threading.Event(), []

    def held(connection: Connection, group: Sequence[Arrival], **rest: Any) -> Recorded:
        sizes.append(len(group))
        if len(sizes) == 1:
            begun.set()
            assert go_on.wait(20)
        return real(connection, group, **rest)

    named = threading.Semaphore(0)
    real_name = Writer.name

    def name(writer: Writer, path: Path) -> None:
        real_name(writer, path)
        named.release()

    monkeypatch.setattr(arrivals, "record", held)
    monkeypatch.setattr(Writer, "name", name)
    images = [image() for _ in range(6)]
    with ThreadPoolExecutor(len(images)) as associations:
        answers = [associations.submit(_take_in_image, gateway, images[0])]
        assert begun.wait(20)
        answers += [associations.submit(_take_in_image, gateway, one) for one in images[1:]]
        for _ in images:
            assert named.acquire(timeout=20)
        time.sleep(0.2)  # from its name on, each has only to ask for the group
        go_on.set()
        assert [isinstance(one.result(20), Stored) for one in answers] == [True] * len(images)
    assert sizes == [1, len(images) - 1]


def _take_in_image(gateway: Gateway, data_set: Dataset) -> Receipt:
    return take_in(gateway, encoded(data_set), str(data_set.SOPInstanceUID))
