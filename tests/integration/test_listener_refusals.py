"""What is not taken is refused with the right status, and nothing of it stays behind."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from pynetdicom import build_context

from pacs_ai import intake
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.ledger import arrivals, sqlite
from pacs_ai.ledger.arrivals import Recorded
from pacs_ai.spool import Disk, Spool
from tests.integration import wire
from tests.integration.listening import (
    CALLED,
    CALLING,
    CT,
    Listening,
    association,
    encoded,
    image,
    listening,
    make_settings,
    send,
    store,
)

PERMANENT, TRANSIENT = 1, 2
USER, PRESENTATION = 1, 3
CALLED_UNKNOWN, LOCAL_LIMIT = 7, 2


@pytest.fixture
def listener(tmp_path: Path, transport: str) -> Iterator[Listening]:
    with listening(make_settings(tmp_path, transport=transport)) as started:
        yield started


def _rejection(port: int, *, calling: str = CALLING, called: str = CALLED) -> tuple[int, int, int]:
    return wire.rejection(port, calling, called)


def _assert_nothing_kept(listener: Listening, *, but_in_quarantine: int = 0) -> None:
    assert listener.instances() == []
    assert listener.files() == []
    assert listener.left() == []
    assert len([*listener.settings.spool_path.glob("quarantine/*")]) == but_in_quarantine


# ---------------------------------------------------------------------- who may send


def test_an_unlisted_calling_ae_title_is_rejected_for_good(listener: Listening) -> None:
    answer = _rejection(listener.port, calling="STRANGER")
    assert answer == wire.CALLING_NOT_RECOGNISED


def test_a_listed_ae_title_from_another_address_is_rejected_for_good(listener: Listening) -> None:
    answer = _rejection(listener.port, calling="ELSEWHERE")
    assert answer == wire.CALLING_NOT_RECOGNISED


def test_another_called_ae_title_is_rejected_for_good(listener: Listening) -> None:
    answer = _rejection(listener.port, called="SOMEONE")
    assert answer == (PERMANENT, USER, CALLED_UNKNOWN)


def test_every_title_that_the_gateway_has_may_be_called_and_no_other(
    tmp_path: Path, transport: str
) -> None:
    with listening(
        make_settings(tmp_path, also_called=["AI-CT", "AI-MR"], transport=transport)
    ) as listener:
        for called in (CALLED, "AI-CT", "AI-MR"):
            with association(listener.port, called=called) as opened:
                assert opened.is_established
        assert _rejection(listener.port, called="AI-XA") == (PERMANENT, USER, CALLED_UNKNOWN)


def test_a_peer_may_be_a_network(tmp_path: Path, transport: str) -> None:
    settings = make_settings(tmp_path, transport=transport)
    peer = settings.peers["modality"]
    for network, admitted in (("127.0.0.0/8", True), ("127.0.0.128/25", False)):
        changed = {"modality": peer.model_copy(update={"addresses": (network,)})}
        with (
            listening(settings.model_copy(update={"peers": changed})) as listener,
            association(listener.port) as opened,
        ):
            assert opened.is_established is admitted


def test_nobody_may_send_when_no_peer_is_listed(tmp_path: Path, transport: str) -> None:
    settings = make_settings(tmp_path, transport=transport).model_copy(update={"peers": {}})
    with listening(settings) as listener:
        assert _rejection(listener.port) == wire.CALLING_NOT_RECOGNISED


def test_who_cannot_be_judged_is_rejected_for_now(
    listener: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmounted(spool: Spool) -> Disk:
        raise OSError(errno.ENOENT, "the spool is gone")

    monkeypatch.setattr(Spool, "disk", unmounted)
    assert _rejection(listener.port) == (TRANSIENT, PRESENTATION, LOCAL_LIMIT)


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path, transport: str) -> None:
    settings = make_settings(tmp_path, transport=transport, maximum_associations=1)
    request = wire.command(0x0001, data_set=True, sop_class=CT, sop_instance="1.2.3")
    with (
        listening(settings) as listener,
        wire.associated(listener.port, CALLING, CALLED, [(1, CT, wire.EXPLICIT)]) as first,
    ):
        first.sendall(wire.values(1, wire.COMMAND | wire.LAST, request) + wire.values(1, 0, b"ab"))
        time.sleep(0.3)  # it has been read: who is busy gives no seat up
        assert _rejection(listener.port) == (TRANSIENT, PRESENTATION, LOCAL_LIMIT)
        first.sendall(wire.values(1, wire.LAST, b"cd"))
        assert wire.status(wire.read(first)[1]) == 0xC000  # it was heard to its end


def test_a_nearly_full_disk_rejects_associations_for_now(tmp_path: Path, transport: str) -> None:
    with listening(make_settings(tmp_path, transport=transport, minimum_free="1000TB")) as listener:
        assert _rejection(listener.port) == (TRANSIENT, PRESENTATION, LOCAL_LIMIT)


def test_more_work_than_the_backlog_allows_rejects_associations_for_now(
    tmp_path: Path, transport: str
) -> None:
    settings = make_settings(tmp_path, transport=transport, maximum_backlog=1)
    hasty = settings.peers["modality"].model_copy(update={"quiet": timedelta(0)})
    peers = {**settings.peers, "modality": hasty}
    with listening(settings.model_copy(update={"peers": peers})) as listener:
        for waiting in (1, 2):  # one Study may wait, so the next is still let in
            assert store(listener.port, image()).Status == 0x0000
            assert listener.gateway.ledger.backlog() == waiting
        assert _rejection(listener.port) == (TRANSIENT, PRESENTATION, LOCAL_LIMIT)
        with listener.gateway.ledger.claim("assemble") as work:
            assert work is not None
            with association(listener.port) as opened:
                assert opened.is_established


# ---------------------------------------------------------------------- what may be sent


@pytest.mark.parametrize("uid", ["1.2.840.01.5", "1." + "2" * 64, "../../../../tmp/pwned"])
@pytest.mark.parametrize("keyword", ["sop_instance", "sop_class"])
def test_a_command_with_what_is_no_uid_is_a900_and_its_association_goes_on(
    tmp_path: Path, keyword: str, uid: str
) -> None:
    """Leading zeros exist in the field; what is worse reaches no name either."""
    data_set = image()
    good = {"sop_class": CT, "sop_instance": str(data_set.SOPInstanceUID)}
    with (
        listening(make_settings(tmp_path)) as listener,
        wire.associated(listener.port, CALLING, CALLED, [(1, CT, wire.EXPLICIT)]) as sock,
    ):
        for uids, status in (({**good, keyword: uid}, 0xA900), (good, 0x0000)):
            request = wire.command(0x0001, data_set=True, **uids)
            sock.sendall(wire.values(1, wire.COMMAND | wire.LAST, request))
            data = encoded(data_set)
            sock.sendall(wire.values(1, 0, data[:50]) + wire.values(1, wire.LAST, data[50:]))
            kind, body = wire.read(sock)
            assert (kind, wire.status(body)) == (0x04, status)
            assert uid.encode() not in body
        (kept,) = listener.instances()
        assert kept["SOPInstanceUID"] == good["sop_instance"]
        assert listener.left() == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("sop_class", ["1.2.3.4.5", "1.2.840.10008.5.1.4.1.2.2.1"])
def test_a_class_that_is_not_stored_here_is_0122_whatever_its_context(
    tmp_path: Path, sop_class: str
) -> None:
    with listening(make_settings(tmp_path)) as listener:
        contexts = [(1, CT, wire.EXPLICIT)]
        with wire.associated(listener.port, CALLING, CALLED, contexts) as peer:
            made = image()
            uid = str(made.SOPInstanceUID)
            for one, status in ((sop_class, 0x0122), (CT, 0x0000)):
                request = wire.command(0x0001, data_set=True, sop_class=one, sop_instance=uid)
                peer.sendall(wire.values(1, wire.COMMAND | wire.LAST, request))
                peer.sendall(wire.values(1, wire.LAST, encoded(made)))
                assert wire.status(wire.read(peer)[1]) == status
        assert len(listener.instances()) == 1


def test_another_application_context_than_dicoms_is_rejected(tmp_path: Path) -> None:
    with listening(make_settings(tmp_path)) as listener, wire.connect(listener.port) as peer:
        request = wire.associate(CALLING, CALLED, [(1, CT, wire.EXPLICIT)])
        peer.sendall(request.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"))
        kind, body = wire.read(peer)
        assert (kind, *body[1:4]) == (wire.REJECTED, PERMANENT, USER, 2)


def test_the_librarys_own_transport_aborts_over_what_is_no_uid(tmp_path: Path) -> None:
    request = wire.command(0x0001, data_set=False, sop_class=CT, sop_instance="1.2.840.01.5")
    with (
        listening(make_settings(tmp_path, transport="plain")) as listener,
        wire.associated(listener.port, CALLING, CALLED, [(1, CT, wire.EXPLICIT)]) as sock,
    ):
        sock.sendall(wire.values(1, wire.COMMAND | wire.LAST, request))
        assert wire.read(sock)[0] == wire.ABORTED
        _assert_nothing_kept(listener)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_a_data_set_that_differs_from_its_command_is_a900(
    listener: Listening, keyword: str
) -> None:
    data_set = image()
    told = str(data_set.SOPInstanceUID)
    setattr(data_set, keyword, generate_uid())
    with association(listener.port) as opened:
        answer = send(opened, encoded(data_set), sop_instance=told)
    assert answer.Status == 0xA900
    _assert_nothing_kept(listener)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 7,
        b"this is not a data set at all" * 40,
        encoded(image())[:40],
        b"\xff" * 100_000,
    ],
    ids=["zeros", "text", "cut off", "ones"],
)
def test_an_unreadable_data_set_is_c000(listener: Listening, data: bytes) -> None:
    with association(listener.port) as opened:
        answer = send(opened, data, sop_instance=generate_uid())
    assert answer.Status == 0xC000
    _assert_nothing_kept(listener, but_in_quarantine=1)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_instance_that_says_not_where_it_belongs_is_c000(
    listener: Listening, keyword: str
) -> None:
    data_set = image()
    uid = str(data_set.SOPInstanceUID)
    delattr(data_set, keyword)
    with association(listener.port) as opened:
        answer = send(opened, encoded(data_set), sop_instance=uid)
    assert answer.Status == 0xC000
    _assert_nothing_kept(listener, but_in_quarantine=1)


def test_an_instance_over_the_object_limit_is_c000(tmp_path: Path, transport: str) -> None:
    with listening(make_settings(tmp_path, transport=transport, maximum_object=100)) as listener:
        answer = store(listener.port, image())
        assert answer.Status == 0xC000
        assert answer.ErrorComment == "larger than the configured object limit"
        _assert_nothing_kept(listener)


def test_the_comment_is_short_and_shows_nothing_of_the_data_set(listener: Listening) -> None:
    data_set = image(PatientName="Canary^Yellow", PatientID="CANARY-77")
    data = encoded(data_set).replace(str(data_set.StudyInstanceUID)[:6].encode(), b"CANARY")
    with association(listener.port) as opened:
        answer = send(opened, data, sop_instance=str(data_set.SOPInstanceUID))
    assert answer.Status == 0xC000
    assert 0 < len(answer.ErrorComment) <= 64
    assert "canary" not in answer.ErrorComment.lower()


# ---------------------------------------------------------------------- when it cannot be kept


def test_a_disk_that_fills_during_an_association_is_a700(
    listener: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    with association(listener.port) as opened:
        monkeypatch.setattr(Spool, "disk", lambda spool: Disk(total=10**12, free=0))
        data_set = image()
        answer = send(opened, encoded(data_set), sop_instance=str(data_set.SOPInstanceUID))
    assert answer.Status == 0xA700
    _assert_nothing_kept(listener)


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_refuses_is_a700_and_a_later_try_succeeds(
    listener: Listening, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data_set = image()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        answer = store(listener.port, data_set)
    assert answer.Status == 0xA700
    _assert_nothing_kept(listener)
    assert store(listener.port, data_set).Status == 0x0000
    assert len(listener.files()) == 1
    assert listener.left() == []


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport: str) -> Iterator[Listening]:
    """A listener whose ledger waits a tenth of a second for a lock, in place of ten seconds."""
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.1)
    with listening(make_settings(tmp_path, transport=transport)) as started:
        yield started


def test_a_ledger_that_is_busy_is_a700_and_a_later_try_succeeds(hasty: Listening) -> None:
    data_set = image()
    with closing(sqlite3.connect(hasty.settings.data / "ledger.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = store(hasty.port, data_set)
        other.execute("ROLLBACK")
    assert answer.Status == 0xA700
    assert hasty.instances() == []
    assert hasty.left() == []
    assert store(hasty.port, data_set).Status == 0x0000
    assert len(hasty.files()) == len(hasty.instances()) == 1


def test_a_ledger_that_cannot_even_be_read_is_a700(hasty: Listening) -> None:
    hasty.gateway.ledger.close()
    with closing(sqlite3.connect(hasty.settings.data / "ledger.sqlite")) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        data_set = image()
        answer = store(hasty.port, data_set)
    assert answer.Status == 0xA700
    assert hasty.instances() == []
    assert hasty.left() == []
    (stray,) = hasty.files()  # whole, for the next try; until a person has it removed
    assert data_set_bytes(stray.read_bytes()) == encoded(data_set)


def test_a_surprise_is_0110_and_the_log_shows_nothing_of_the_data_set(
    listener: Listening, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def surprise(*_: object) -> bool:
        raise ValueError("a surprise")

    monkeypatch.setattr(intake, "plain_head", surprise)
    with caplog.at_level(logging.WARNING):
        answer = store(listener.port, image())
    assert answer.Status == 0x0110
    assert answer.ErrorComment == "the gateway could not take it in"
    assert "an Instance could not be taken in" in caplog.messages
    _assert_nothing_kept(listener)


def test_an_instance_without_a_data_set_never_gets_the_librarys_own_status(
    listener: Listening,
) -> None:
    with association(listener.port) as opened:
        answer = send(opened, None, sop_instance=generate_uid())
    assert answer.Status == 0xC000
    _assert_nothing_kept(listener)


# ---------------------------------------------------------------------- temporary files


def test_temporary_files_of_a_process_that_is_gone_are_swept_at_start(
    tmp_path: Path, transport: str
) -> None:
    settings = make_settings(tmp_path, transport=transport)
    folder = Spool(settings.spool_path).temporary
    with subprocess.Popen(["true"]) as gone:
        (folder / f"{gone.pid}.left.dcm").write_bytes(b"half an Instance")
    alive = folder / f"{os.getpid()}.other"  # of a worker, for instance, that writes a result
    alive.write_bytes(b"half a result")
    with listening(settings) as listener:
        assert listener.temporary() == [alive]


def test_what_comes_in_rests_nowhere_but_on_the_spools_disk(
    listener: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    real = arrivals.record

    def look(*arguments: Any, **named: Any) -> Recorded:
        seen.extend(listener.temporary())
        return real(*arguments, **named)

    monkeypatch.setattr(arrivals, "record", look)
    assert store(listener.port, image()).Status == 0x0000
    assert seen
    assert listener.left() == []


def test_several_contexts_of_one_class_keep_their_own_syntax(listener: Listening) -> None:
    contexts = [build_context(CT, "1.2.840.10008.1.2.1"), build_context(CT, "1.2.840.10008.1.2.5")]
    with association(listener.port, contexts) as opened:
        for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"):
            data_set = image()
            uid = str(data_set.SOPInstanceUID)
            answer = send(opened, encoded(data_set), sop_instance=uid, syntax=syntax)
            assert answer.Status == 0x0000
    held = {one["transfer_syntax_uid"] for one in listener.instances()}
    assert held == {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"}
