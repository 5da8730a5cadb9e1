"""What goes wrong on the way in is counted, and turns health red while it lasts; never a patient's data."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from listener.dimse import C_STORE_RQ, Request
from listener.handlers import Reception
from pacs_ai.gateway import Gateway
from pacs_ai.ledger import sqlite
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Settings
from pacs_ai.spool import SpoolFullError
from pacs_ai.study import Head
from pacs_ai.web.storing import Storing
from tests.integration.listening import CT, encoded, image, make_settings

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    return make_settings(tmp_path).model_copy(update={"ledger": ledger_url})


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    made = Gateway(settings)
    yield made
    made.close()


def send(
    gateway: Gateway,
    *,
    data: bytes | None = None,
    uid: str | None = None,
    peer: str | None = "modality",
) -> int:
    """Send an Instance by C-STORE; return the status that is answered."""
    data_set = image()
    instance = str(data_set.SOPInstanceUID) if uid is None else uid
    request = Request(C_STORE_RQ, 1, CT, instance, has_data_set=True)
    reception = Reception(gateway, peer=peer, request=request, transfer_syntax_uid=SYNTAX)
    reception.write(encoded(data_set) if data is None else data)
    answer = reception.finish()
    reception.discard()
    return answer if isinstance(answer, int) else int(answer.Status)


def health(gateway: Gateway) -> dict[str, Any]:
    gateway._tally.tell()
    return Views(gateway.ledger.database).health()


def refused(gateway: Gateway) -> dict[str, int]:
    return {status: one["number"] for status, one in health(gateway)["refused"].items()}


def fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_refusals_are_counted_by_status(gateway: Gateway) -> None:
    assert refused(gateway) == {}
    for _ in range(2):
        send(gateway, data=b"nonsense" * 100)
    send(gateway, uid="1.2.3")
    assert refused(gateway) == {"0xA900": 1, "0xC000": 2}
    send(gateway, uid="1.2.3")
    assert refused(gateway) == {"0xA900": 2, "0xC000": 2}


def test_what_is_refused_before_it_begins_is_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(gateway, peer=None) == 0x0124
    assert send(gateway, uid="") == 0xA900
    monkeypatch.setattr(gateway, "has_room", lambda: False)
    assert send(gateway) == 0xA700
    assert refused(gateway) == {"0x0124": 1, "0xA700": 1, "0xA900": 1}


def test_a_part_of_a_request_that_is_refused_is_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing = Storing(gateway, peer="modality", study=None)
    storing.begin("text/plain")
    storing.end()
    storing.begin("application/dicom")
    storing.write(memoryview(b"nonsense" * 100))
    storing.end()
    assert refused(gateway) == {f"0x{reason:04X}": 2 for _, reason in storing.failed}


def test_what_nobody_expected_is_counted_as_0110(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Head:
        raise RuntimeError

    monkeypatch.setattr("pacs_ai.intake.plain_head", broken)
    assert send(gateway) == 0x0110
    assert refused(gateway) == {"0x0110": 1}


def test_what_is_stored_counts_nothing_and_starts_nothing(gateway: Gateway) -> None:
    assert send(gateway) == 0x0000
    assert gateway._tally._timer is None
    assert refused(gateway) == {}


def test_a_process_that_ends_tells_what_it_counted(settings: Settings) -> None:
    gateway = Gateway(settings)
    for _ in range(3):
        send(gateway, data=b"nonsense")
    gateway.close()
    again = Gateway(settings)
    assert refused(again) == {"0xC000": 3}
    again.close()


def test_a_sync_that_failed_turns_health_red_until_an_instance_is_stored(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(gateway) == 0x0000
    assert health(gateway)["healthy"] is True
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert send(gateway) == 0xA700
    (problem,) = health(gateway)["problems"]
    assert health(gateway)["healthy"] is False
    assert "look at its disk" in problem
    send(gateway, data=b"nonsense")
    assert health(gateway)["healthy"] is False
    assert send(gateway) == 0x0000
    assert health(gateway)["healthy"] is True


def test_a_file_that_cannot_be_begun_turns_health_red(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        assert send(gateway) == 0xA700
    assert health(gateway)["healthy"] is False
    assert refused(gateway) == {"0xA700": 1}


def test_a_result_that_the_disk_refuses_turns_health_red(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(SpoolFullError), gateway._tally.watching_spool():
            gateway.spool.put_results(b"{}")
    assert health(gateway)["healthy"] is False


def test_what_a_busy_ledger_did_not_take_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(make_settings(tmp_path))
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.1)
    with closing(sqlite3.connect(tmp_path / "gateway" / "ledger.sqlite")) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        answer = send(gateway)
        gateway._tally.tell()
        other.execute("ROLLBACK")
    assert answer == 0xA700
    assert refused(gateway) == {"0xA700": 1}
    gateway.close()


def test_who_is_refused_is_answered_and_counted_although_no_thread_can_be_started(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", none_left)
        assert send(gateway, data=b"garbage") == 0xC000
    assert send(gateway, data=b"garbage") == 0xC000
    until = time.monotonic() + 10
    while not (refused := Views(gateway.ledger.database).health()["refused"]):
        assert time.monotonic() < until, "nothing was told"
        time.sleep(0.05)
    assert {status: one["number"] for status, one in refused.items()} == {"0xC000": 2}
