"""What goes wrong on the way in is counted, and turns health red while it lasts; never a patient's data."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Receipt, Refused, Stored
from pacs_ai.ledger import sqlite
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Settings
from pacs_ai.spool import SpoolFullError
from pacs_ai.study import Head
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


def send(gateway: Gateway, *, data: bytes | None = None, uid: str | None = None) -> Receipt:
    data_set = image()
    context = Context(CT, uid or str(data_set.SOPInstanceUID), SYNTAX)
    incoming = gateway.incoming("modality", context)
    try:
        incoming.write(encoded(data_set) if data is None else data)
        return incoming.commit()
    finally:
        incoming.discard()


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


def test_what_nobody_expected_is_counted_as_0110(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Head:
        raise RuntimeError

    monkeypatch.setattr("pacs_ai.intake.plain_head", broken)
    with pytest.raises(RuntimeError):
        send(gateway)
    assert refused(gateway) == {"0x0110": 1}


def test_what_is_stored_counts_nothing_and_starts_nothing(gateway: Gateway) -> None:
    assert isinstance(send(gateway), Stored)
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
    assert isinstance(send(gateway), Stored)
    assert health(gateway)["healthy"] is True
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        answer = send(gateway)
    assert isinstance(answer, Refused)
    assert answer.status == 0xA700
    (problem,) = health(gateway)["problems"]
    assert health(gateway)["healthy"] is False
    assert "look at its disk" in problem
    send(gateway, data=b"nonsense")
    assert health(gateway)["healthy"] is False
    assert isinstance(send(gateway), Stored)
    assert health(gateway)["healthy"] is True


def test_a_file_that_cannot_be_begun_turns_health_red(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(SpoolFullError):
            send(gateway)
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
    assert isinstance(answer, Refused)
    assert refused(gateway) == {"0xA700": 1}
    gateway.close()
