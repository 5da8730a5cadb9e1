"""Who comes together is made durable together, and one that cannot be is nobody else's fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from pacs_ai.gateway import Gateway
from pacs_ai.grouping import _FRESH, _LONG, GroupCommit, _Waiting
from pacs_ai.ledger import arrivals, tables
from pacs_ai.ledger.arrivals import Arrival, Recorded
from pacs_ai.ledger.engine import LedgerBusyError, Steady
from pacs_ai.ledger.views import Views
from pacs_ai.spool import SpoolFullError, Writer
from pacs_ai.study import Head
from tests.integration.listening import CT, make_settings

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def gateway(tmp_path: Path, ledger_url: str) -> Iterator[Gateway]:
    made = Gateway(make_settings(tmp_path).model_copy(update={"ledger": ledger_url}))
    yield made
    made.close()


@pytest.fixture
def group(gateway: Gateway) -> Iterator[GroupCommit]:
    made = GroupCommit(gateway.ledger)
    yield made
    made.close()


def arrival(number: int, study: str = "1.2.3") -> Arrival:
    head = Head(CT, f"1.2.3.{number}", study, "1.2.4", "CT", "")
    return Arrival(head, f"{number:064}", 1, SYNTAX, "modality", timedelta())


def synced(gateway: Gateway) -> Writer:
    writer = gateway.spool.writer()
    writer.write(b"a data set")
    writer.sync()
    return writer


def record(gateway: Gateway, group: GroupCommit, one: Arrival) -> bool:
    writer = synced(gateway)
    path = gateway.spool.instance_path(one.digest, one.transfer_syntax_uid)
    try:
        return group.record(one, writer, str(path))
    finally:
        writer.discard()


def files(gateway: Gateway) -> list[Path]:
    return [one for one in (gateway.spool.path / "instances").rglob("*") if one.is_file()]


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.001)


def at_once(
    gateway: Gateway, group: GroupCommit, several: list[Arrival], hold: threading.Event
) -> list[Any]:
    """Record several, all but the first while the first is held; return what became of each."""
    answers: list[Any] = [None] * len(several)

    def run(place: int) -> None:
        try:
            answers[place] = record(gateway, group, several[place])
        except Exception as error:
            answers[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(several))]
    threads[0].start()
    until(lambda: group._led)
    for one in threads[1:]:
        one.start()
    until(lambda: len(group._waiting) == len(several) - 1)
    hold.set()
    for one in threads:
        one.join(20)
        assert not one.is_alive()
    return answers


@pytest.fixture
def transactions(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Count Instances by transaction; the first transaction waits until ``hold`` is set."""
    real, hold, sizes = arrivals.record, threading.Event(), []

    def counting(connection: Any, group: Any, **rest: Any) -> Recorded:
        if not sizes:
            hold.wait(10)
        sizes.append(len(group))
        return real(connection, group, **rest)

    monkeypatch.setattr(arrivals, "record", counting)
    yield hold, sizes


def test_all_that_wait_share_one_transaction(
    gateway: Gateway, group: GroupCommit, transactions: Any
) -> None:
    hold, sizes = transactions
    several = [arrival(number, study=f"1.2.{number % 3}") for number in range(20)]
    assert at_once(gateway, group, several, hold) == [True] * 20
    assert sizes == [1, 19]
    assert len(Views(gateway.ledger.database).instances(None)) == 20


def test_the_same_bytes_twice_in_a_group_are_new_once(
    gateway: Gateway, group: GroupCommit, transactions: Any
) -> None:
    hold, _ = transactions
    answers = at_once(gateway, group, [arrival(0), arrival(1), arrival(1), arrival(1)], hold)
    assert sorted(answers) == [False, False, True, True]
    assert len(Views(gateway.ledger.database).instances(None)) == 2


def test_one_that_the_ledger_cannot_take_is_not_the_others_fault(
    gateway: Gateway, group: GroupCommit, transactions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, _ = transactions
    counted = arrivals.record

    def failing(connection: Any, group: Any, **rest: Any) -> Recorded:
        if any(one.head.SOPInstanceUID == "1.2.3.2" for one in group):
            raise ValueError("a fault of this one")
        return counted(connection, group, **rest)

    monkeypatch.setattr(arrivals, "record", failing)
    answers = at_once(gateway, group, [arrival(number) for number in range(4)], hold)
    assert isinstance(answers.pop(2), ValueError)
    assert answers == [True, True, True]


def test_a_ledger_that_is_busy_is_asked_once_for_a_group(
    gateway: Gateway, group: GroupCommit, transactions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, sizes = transactions
    counted = arrivals.record

    def busy(connection: Any, group: Any, **rest: Any) -> Recorded:
        if sizes:
            sizes.append(len(group))
            raise LedgerBusyError("busy")
        return counted(connection, group, **rest)

    monkeypatch.setattr(arrivals, "record", busy)
    answers = at_once(gateway, group, [arrival(number) for number in range(4)], hold)
    assert answers[0] is True
    assert [type(one) for one in answers[1:]] == [LedgerBusyError] * 3
    assert sizes == [1, 3]
    monkeypatch.setattr(arrivals, "record", counted)  # and the next one is taken
    assert record(gateway, group, arrival(9))


@pytest.mark.parametrize("door", ["name", "hold_name"])
def test_a_name_that_the_disk_refuses_is_not_recorded(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    def refuse(*_: object) -> None:
        raise SpoolFullError("no")

    one = arrival(0)
    writer = synced(gateway)
    with monkeypatch.context() as patched, pytest.raises(SpoolFullError):
        patched.setattr(Writer, door, refuse)
        group.record(one, writer, gateway.spool.resting(one.digest, SYNTAX))
    writer.discard()
    assert Views(gateway.ledger.database).instances(None) == []


def test_one_whose_name_is_refused_in_the_transaction_is_not_the_others_fault(
    gateway: Gateway, group: GroupCommit, transactions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, _ = transactions
    real = Writer.hold_name

    def refuse(writer: Writer, path: str) -> None:
        if f"/{2:064}" in path:
            raise SpoolFullError("no")
        real(writer, path)

    monkeypatch.setattr(Writer, "hold_name", refuse)
    answers = at_once(gateway, group, [arrival(number) for number in range(4)], hold)
    assert isinstance(answers.pop(2), SpoolFullError)
    assert answers == [True, True, True]


@pytest.mark.parametrize("first", [0, 1])
def test_the_same_bytes_twice_in_a_group_need_one_file(
    gateway: Gateway, group: GroupCommit, transactions: Any, first: int
) -> None:
    hold, _ = transactions
    path = gateway.spool.instance_path(arrival(1).digest, SYNTAX)
    pair = [synced(gateway), synced(gateway)]
    for writer in pair:
        writer.name(str(path))  # the first has it
    waiting = [_Waiting(arrival(1), writer, str(path)) for writer in pair]
    hold.set()
    group._commit([waiting[first], waiting[1 - first]])
    assert [one.error for one in waiting] == [None, None]
    assert sorted(one.new for one in waiting) == [False, True]
    for writer in pair:
        writer.discard()
    assert files(gateway) == [path]


def test_bytes_that_no_row_counts_on_get_a_file_that_is_synced(
    gateway: Gateway, group: GroupCommit
) -> None:
    stray = gateway.spool.instance_path(arrival(0).digest, SYNTAX)
    stray.parent.mkdir()
    stray.write_bytes(b"cut off by a pow")
    assert record(gateway, group, arrival(0))
    assert stray.read_bytes().endswith(b"a data set")


def test_a_file_whose_row_cannot_be_written_stays_for_whoever_brought_the_same_bytes(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:

    def busy(*_: object) -> Any:
        raise LedgerBusyError("busy")

    with monkeypatch.context() as patched, pytest.raises(LedgerBusyError):
        patched.setattr(Steady, "write", busy)
        record(gateway, group, arrival(0))
    (stray,) = files(gateway)
    assert stray.read_bytes().endswith(b"a data set")
    assert Views(gateway.ledger.database).instances(None) == []
    assert record(gateway, group, arrival(0))
    assert files(gateway) == [stray]


def test_a_file_that_retention_removed_before_its_row_was_written_is_there_again(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Steady.write

    @contextmanager
    def removed_before(self: Any) -> Iterator[Any]:
        (file,) = files(gateway)
        file.unlink()
        with real(self) as connection:
            yield connection

    monkeypatch.setattr(Steady, "write", removed_before)
    assert record(gateway, group, arrival(0))
    (file,) = files(gateway)
    assert file.read_bytes().endswith(b"a data set")


def asked(gateway: Gateway) -> list[tuple[str, datetime]]:
    with gateway.ledger.database.read() as connection:
        columns = tables.work.c.subject, tables.work.c.not_before
        return [(subject, start) for subject, start in connection.execute(select(*columns))]


def waiting(number: int, quiet: float, study: str = "1.2.3", modality: str = "CT") -> Arrival:
    head = Head(CT, f"1.2.3.{number}", study, "1.2.4", modality, "")
    return Arrival(head, f"{number:064}", 1, SYNTAX, "modality", timedelta(seconds=quiet))


def test_a_study_that_waits_for_quiet_is_not_put_off_by_every_instance(
    gateway: Gateway, group: GroupCommit
) -> None:
    assert record(gateway, group, waiting(0, quiet=60))
    first = asked(gateway)
    assert record(gateway, group, waiting(1, quiet=60))
    assert asked(gateway) == first, "it waits for much longer than the moment in which it was asked"
    group._asked = {study: (at - _FRESH, wall) for study, (at, wall) in group._asked.items()}
    assert record(gateway, group, waiting(2, quiet=60))
    ((_, later),) = asked(gateway)
    assert later > first[0][1]


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_study_is_asked_again_when_the_clock_was_set(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    # It says when the Study is due: it may be assembled already, half a second by another clock or not.
    assert record(gateway, group, waiting(0, quiet=60))
    with gateway.ledger.database.write() as connection:
        connection.execute(delete(tables.work))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert record(gateway, group, waiting(1, quiet=60))
    assert [study for study, _ in asked(gateway)] == ["1.2.3"]


def test_a_study_that_waits_for_a_short_quiet_is_put_off_by_every_instance(
    gateway: Gateway,
    group: GroupCommit,
) -> None:
    for number in range(3):
        before = asked(gateway)
        assert record(gateway, group, waiting(number, quiet=_LONG.total_seconds() - 0.1))
        assert asked(gateway) != before


def test_a_study_that_was_not_asked_is_asked_by_its_first_source(
    gateway: Gateway, group: GroupCommit
) -> None:
    assert record(gateway, group, waiting(0, quiet=60, modality="SR"))
    assert asked(gateway) == [], "a report alone is no Study to assemble"
    assert record(gateway, group, waiting(1, quiet=60))
    assert [study for study, _ in asked(gateway)] == ["1.2.3"]


def test_a_study_whose_asking_took_long_is_asked_again(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = arrivals.record

    def slow(*rest: Any, **named: Any) -> Recorded:
        recorded = real(*rest, **named)
        time.sleep(_FRESH)
        return recorded

    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "record", slow)
        record(gateway, group, waiting(0, quiet=60))
    first = asked(gateway)
    record(gateway, group, waiting(1, quiet=60))
    assert asked(gateway) != first, "it may be assembled already"


def test_what_the_ledger_did_not_keep_was_not_asked(
    gateway: Gateway, group: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = arrivals.record

    def fails_late(*rest: Any, **named: Any) -> Recorded:
        real(*rest, **named)
        raise LedgerBusyError("busy")

    with monkeypatch.context() as patched, pytest.raises(LedgerBusyError):
        patched.setattr(arrivals, "record", fails_late)
        record(gateway, group, waiting(0, quiet=60))
    assert record(gateway, group, waiting(1, quiet=60))
    assert [study for study, _ in asked(gateway)] == ["1.2.3"]
