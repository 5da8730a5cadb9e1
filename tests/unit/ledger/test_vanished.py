"""A ledger whose file is removed or replaced under a running gateway: nobody is told that it took a thing."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from pacs_ai.errors import SpoolError
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context, Duplicate, Receipt, Refused, Stored
from pacs_ai.ledger.engine import Database, LedgerBusyError, LedgerGoneError, LedgerUnusableError
from pacs_ai.ledger.sqlite import certain
from pacs_ai.ledger.views import Views
from tests.integration.listening import CT, encoded, image, make_settings

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(make_settings(tmp_path))
    yield made
    made.close()


def ledger_file(gateway: Gateway) -> Path:
    return gateway.settings.data / "ledger.sqlite"


def send(gateway: Gateway, data: bytes, uid: str) -> Receipt:
    incoming = gateway.incoming("modality", Context(CT, uid, SYNTAX))
    incoming.write(data)
    answer = incoming.commit()
    incoming.discard()
    return answer


def send_new(gateway: Gateway) -> Receipt:
    data_set = image()
    return send(gateway, encoded(data_set), str(data_set.SOPInstanceUID))


def assert_out_of_resources(answer: Receipt) -> None:
    assert isinstance(answer, Refused)
    assert answer.status == 0xA700


def assert_refused_and_left_as_it_was(gateway: Gateway) -> None:
    """Nobody is acknowledged by the file that is there now, and nothing is written into it."""
    file = ledger_file(gateway)
    was = file.read_bytes()
    for _ in range(2):
        assert_out_of_resources(send_new(gateway))
    gateway.close()
    assert file.read_bytes() == was


def remove(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def move_away(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.rename(one.with_name(f"old-{one.name}"))


def backed_up(file: Path) -> Path:
    copy = file.with_name("backup")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def test_nothing_is_acknowledged_while_the_ledgers_file_is_gone(gateway: Gateway) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    assert isinstance(send(gateway, data, uid), Stored)
    remove(ledger_file(gateway))
    for _ in range(3):
        assert_out_of_resources(send_new(gateway))
        assert_out_of_resources(send(gateway, data, uid))  # no "duplicate" of what is known no more
    assert not ledger_file(gateway).exists()


def test_a_file_that_goes_during_the_commit_is_not_acknowledged(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    engine = gateway.ledger.database.engine

    @event.listens_for(engine, "commit")
    def _vanish(connection: Connection) -> None:
        remove(ledger_file(gateway))

    assert_out_of_resources(send_new(gateway))
    event.remove(engine, "commit", _vanish)


def test_a_missing_file_is_told_with_what_to_do(gateway: Gateway) -> None:
    remove(ledger_file(gateway))
    for _ in range(2):
        with (
            pytest.raises(LedgerGoneError, match="stop the gateway, put its backup back"),
            gateway.ledger.database.write(),
        ):
            pass


def test_no_new_ledger_is_made_beside_instances_of_a_lost_one(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    remove(ledger_file(gateway))
    with pytest.raises(LedgerUnusableError, match="put its backup back"):
        Gateway(gateway.settings)
    assert not ledger_file(gateway).exists()


def test_no_new_spool_is_made_beside_a_ledger_that_knows_what_was_in_the_lost_one(
    gateway: Gateway,
) -> None:
    assert isinstance(send_new(gateway), Stored)
    gateway.close()
    disk = gateway.spool.path
    disk.rename(disk.with_name("elsewhere"))
    disk.mkdir()  # where its disk is not mounted
    with pytest.raises(SpoolError, match="mount its disk"):
        Gateway(gateway.settings)
    assert [*disk.iterdir()] == []
    (disk / "instances").mkdir()
    Gateway(gateway.settings).close()


def test_a_ledger_that_knows_nothing_gets_a_new_spool(gateway: Gateway) -> None:
    gateway.close()
    disk = gateway.spool.path
    disk.rename(disk.with_name("elsewhere"))
    Gateway(gateway.settings).close()
    assert (disk / "instances").is_dir()


def open_logs(file: Path) -> list[str]:
    opened = (str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
    return [one for one in opened if one.startswith(f"{file}-wal")]


def test_no_file_that_comes_later_is_taken_for_the_former_log(gateway: Gateway) -> None:
    # Its number is free for others once nobody has it open: then the copy's log may have it.
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    remove(file)
    assert_out_of_resources(send_new(gateway))  # every connection to the former is given up
    assert open_logs(file) == [f"{file}-wal (deleted)"]


def test_the_former_log_is_let_go_for_that_of_a_copy(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    copy = backed_up(file)
    remove(file)
    assert_out_of_resources(send_new(gateway))
    copy.rename(file)
    send_new(gateway)  # this one may find the former
    assert isinstance(send_new(gateway), Stored)
    assert f"{file}-wal (deleted)" not in open_logs(file)


@pytest.fixture
def anothers(tmp_path: Path) -> Path:
    """The ledger of another gateway, in one file."""
    another = Gateway(make_settings(tmp_path / "another"))
    send_new(another)
    another.close()
    return backed_up(ledger_file(another))


def test_no_file_that_comes_later_is_taken_for_the_former_ledger(
    gateway: Gateway, anothers: Path
) -> None:
    # As soon as nobody has the former open, the file system may give its number to the next.
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    file.unlink()  # and its log stays
    assert_out_of_resources(send_new(gateway))  # every connection to the former is given up
    shutil.copyfile(anothers, file)
    assert_refused_and_left_as_it_was(gateway)


def test_anothers_ledger_is_refused_after_this_one_was_closed(
    gateway: Gateway, anothers: Path
) -> None:
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    gateway.ledger.close()  # as between two looks of the bell
    file.unlink()
    shutil.copyfile(anothers, file)
    assert_refused_and_left_as_it_was(gateway)


def test_a_ledger_that_was_away_and_came_back_is_used(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    away = file.rename(file.with_name("away"))
    assert_out_of_resources(send_new(gateway))
    away.rename(file)
    assert isinstance(send_new(gateway), Stored)


@pytest.mark.parametrize("put_away", [remove, move_away])
def test_a_good_copy_in_its_place_is_used(
    gateway: Gateway, put_away: Callable[[Path], None]
) -> None:
    data_set = image()
    data, uid = encoded(data_set), str(data_set.SOPInstanceUID)
    assert isinstance(send(gateway, data, uid), Stored)
    file = ledger_file(gateway)
    copy = backed_up(file)
    put_away(file)
    copy.rename(file)
    send_new(gateway)  # this one may find the former
    assert isinstance(send(gateway, data, uid), Duplicate)
    assert isinstance(send_new(gateway), Stored)
    with closing(sqlite3.connect(file)) as looking:
        assert looking.execute("select count(*) from instances").fetchone() == (2,)
        assert looking.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_copy_beside_the_former_files_log_is_refused_and_stays_whole(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    copy = backed_up(file)
    assert isinstance(send_new(gateway), Stored)
    copy.replace(file)
    assert_refused_and_left_as_it_was(gateway)


def test_a_new_ledger_is_not_taken_for_the_one_that_was_there(gateway: Gateway) -> None:
    assert isinstance(send_new(gateway), Stored)
    file = ledger_file(gateway)
    remove(file)
    another = Database(f"sqlite:///{file}")
    another.upgrade()
    another.close()
    for _ in range(2):
        assert_out_of_resources(send_new(gateway))
    assert Views(Database(f"sqlite:///{file}")).instances(None) == []


@pytest.mark.parametrize("content", [b"garbage" * 1000, b""])
def test_garbage_in_its_place_is_refused(gateway: Gateway, content: bytes) -> None:
    assert isinstance(send_new(gateway), Stored)
    remove(ledger_file(gateway))
    ledger_file(gateway).write_bytes(content)
    for _ in range(3):
        with pytest.raises((LedgerBusyError, LedgerUnusableError)), gateway.ledger.database.write():
            pass
    assert ledger_file(gateway).read_bytes() == content


def test_to_look_costs_a_transaction_no_ten_microseconds(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.upgrade()
    with database.read() as connection:
        best = min(_looked(connection) for _ in range(20))
    database.close()
    assert 2 * best < 10e-6


def _looked(connection: Connection) -> float:
    begun = time.perf_counter()
    for _ in range(200):
        certain(connection)
    return (time.perf_counter() - begun) / 200
