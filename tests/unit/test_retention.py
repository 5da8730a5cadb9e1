"""What has ended long ago leaves the spool; what something counts on never does, whatever comes between."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import delete, insert, select, text, update

from pacs_ai import models, phantom
from pacs_ai.cli.disk import stray_lines, tell_strays
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.gateway import Gateway
from pacs_ai.grouping import GroupCommit
from pacs_ai.intake import Context, Duplicate, Receipt, Refused, Stored
from pacs_ai.ledger import arrivals, clock, tables
from pacs_ai.ledger import retention as ledger_retention
from pacs_ai.ledger.arrivals import Recorded
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.dialects import lock_spool
from pacs_ai.ledger.engine import LedgerBusyError
from pacs_ai.ledger.views import Views
from pacs_ai.retention import Retention, holdings
from pacs_ai.settings import loads
from pacs_ai.spool import FOLDERS, TEMPORARY_AGE, Spool, SpoolFullError
from tests.integration.listening import CT, encoded, image, write_settings
from tests.unit.test_gateway import Driver

SYNTAX = "1.2.840.10008.1.2.1"
DAY = timedelta(days=1)


@dataclass
class Site:
    """A gateway without rules, and its retention: a Study that came has ended at the next step."""

    gateway: Gateway
    retention: Retention

    def store(self, data_set: Dataset) -> Receipt:
        uid = str(data_set.SOPInstanceUID)
        incoming = self.gateway.incoming("modality", Context(CT, uid, SYNTAX))
        try:
            incoming.write(encoded(data_set))
            return incoming.commit()
        finally:
            incoming.discard()

    def receive(self, *data_sets: Dataset) -> list[Receipt]:
        answers = [self.store(one) for one in data_sets]
        self.carry_out()
        return answers

    def carry_out(self) -> None:
        while self.gateway.assemble() or self.gateway.route() or self.gateway.worklist():
            pass

    def clean(self) -> None:
        """Let retention do everything that it would do today."""
        self.retention._next = float("-inf")
        while self.retention.look(self.gateway.ledger):
            pass

    def clean_everything(self) -> None:
        """Let retention look through every folder, as it does in two days."""
        for _ in range(FOLDERS):
            self.clean()

    def files(self) -> list[Path]:
        return sorted(one for one in self.gateway.spool.path.rglob("*") if one.is_file())

    def states(self) -> list[str]:
        return [one["state"] for one in self.views.instances(None)]

    @property
    def views(self) -> Views:
        return Views(self.gateway.ledger.database)

    def path(self, data_set: Dataset) -> Path:
        (row,) = (
            one
            for one in self.views.instances(None)
            if one["SOPInstanceUID"] == data_set.SOPInstanceUID
        )
        return self.gateway.spool.instance_path(row["digest"], SYNTAX)


def _site(folder: Path, ledger_url: str, keep: str = "{sources: 0d}") -> Site:
    text = write_settings(folder).replace("quiet: 1h", "quiet: 0s")
    settings = loads(f"{text}\nledger: {ledger_url}\nretention: {keep}\n")
    gateway = Gateway(settings)
    return Site(gateway, Retention(settings, gateway.spool))


@pytest.fixture
def site(tmp_path: Path, ledger_url: str) -> Iterator[Site]:
    made = _site(tmp_path, ledger_url)
    yield made
    made.gateway.close()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Site]:
    """The same on SQLite alone."""
    made = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.gateway.close()


def _of(data_set: Dataset, **values: Any) -> Dataset:
    """Return another Instance of the same Study."""
    return image(
        StudyInstanceUID=data_set.StudyInstanceUID,
        SeriesInstanceUID=data_set.SeriesInstanceUID,
        **values,
    )


# ---------------------------------------------------------------------- what is let go, and when


def test_a_study_that_has_ended_leaves_the_spool_and_is_seen_to(site: Site) -> None:
    first = image()
    second = _of(first)
    site.receive(first, second)
    study = str(first.StudyInstanceUID)
    before = [one["digest"] for one in site.views.instances(study)]
    site.clean()
    assert site.files() == []
    assert site.states() == ["removed", "removed"]
    assert [one["digest"] for one in site.views.instances(study)] == before
    timeline = site.views.timeline(study)
    assert (timeline["state"], timeline["removed"]) == ("not_current", 2)
    told = [one for one in timeline["events"] if one["kind"] == "sources removed"]
    assert [one["actor"] for one in told] == ["retention"]
    assert told[0]["reason"].startswith("2 instances, ")
    site.clean()
    assert site.views.timeline(study)["events"] == timeline["events"], "told once"


def test_nothing_is_let_go_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", "{sources: 2d}")
    site.receive(image())
    site.clean()
    assert site.states() == ["kept"]
    _age(site, 3 * DAY)
    _let_an_hour_pass(monkeypatch)
    site.clean()
    assert site.states() == ["removed"]
    site.gateway.close()


def test_never_keeps_for_ever(tmp_path: Path) -> None:
    keep = "{sources: never, results: never}"
    site = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", keep)
    site.receive(image())
    _age(site, 10_000 * DAY)
    site.clean()
    assert site.states() == ["kept"]
    site.gateway.close()


def _set_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    monkeypatch.setattr(clock, "host_time", lambda: datetime.now(UTC) + by)


def _let_pass(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the monotonic clock go on; the other was set already, or goes on with it."""
    passed = time.monotonic() + by.total_seconds()
    monkeypatch.setattr("pacs_ai.retention.monotonic", lambda: passed)


def _let_an_hour_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_pass(monkeypatch, timedelta(seconds=3700))
    _set_clock(monkeypatch, timedelta(seconds=3700))


def test_a_clock_that_leaps_is_not_believed_until_it_has_gone_steadily(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", "{sources: 1d}")
    site.clean()
    site.receive(image())
    passed = timedelta(seconds=3700)
    _let_pass(monkeypatch, passed)
    _set_clock(monkeypatch, passed + 3650 * DAY)
    site.clean()
    assert site.states() == ["kept"]
    assert "the clock leapt" in caplog.text
    _set_clock(monkeypatch, passed)  # a person or a time service set it right
    _age(site, 2 * DAY)
    site.clean()
    assert site.states() == ["kept"], "that was a leap too"
    _let_pass(monkeypatch, 2 * passed)
    _set_clock(monkeypatch, 2 * passed)
    site.clean()
    assert site.states() == ["removed"]
    site.gateway.close()


def test_who_has_just_begun_to_lead_has_seen_no_clock_go_steadily(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", "{sources: 1d}")
    site.receive(image())
    _set_clock(monkeypatch, 3650 * DAY)
    site.receive(image())  # dated by the wrong clock, as an event of another worker's is
    site.clean()
    assert site.states() == ["kept", "kept"]
    site.gateway.close()


def _age(site: Site, by: timedelta) -> None:
    """Let everything have happened so much earlier."""
    work, known = tables.work, tables.studies
    with site.gateway.ledger.database.write() as connection:
        for row in connection.execute(select(work)).all():
            mine = update(work).where(work.c.id == row.id)
            connection.execute(mine.values(ended_at=row.ended_at - by))
        connection.execute(update(known).values(last_at=now() - by))


def _work(site: Site, state: str) -> None:
    with site.gateway.ledger.database.write() as connection:
        connection.execute(update(tables.work).values(state=state))


def _instance(site: Site, state: str) -> None:
    with site.gateway.ledger.database.write() as connection:
        connection.execute(update(tables.instances).values(state=state))


def _delivery(site: Site, state: str) -> None:
    with site.gateway.ledger.database.write() as connection:
        study = connection.scalar(select(tables.studies.c.study_instance_uid))
        of_study = {"study_instance_uid": study, "series_instance_uid": "1.2", "subject": "page"}
        made = {"sop_instance_uid": "1.2.3", "sop_class_uid": CT, "transfer_syntax_uid": SYNTAX}
        made |= {"kind": "capture", "volumetric": False, "digest": "0" * 64, "size": 1}
        connection.execute(insert(tables.objects).values(**of_study, **made, made_at=now()))
        sent = {"sop_instance_uid": "1.2.3", "destination": "pacs", "state": state}
        connection.execute(insert(tables.deliveries).values(**sent, created_at=now()))


@pytest.mark.parametrize(
    ("make", "state", "files"),
    [
        *((_work, state, 1) for state in ("ready", "running", "held", "failed")),
        *((_instance, state, 1) for state in ("conflict", "unchecked")),
        *((_delivery, state, 1) for state in ("pending", "refused")),
        *((_delivery, state, 0) for state in ("stored", "withheld", "superseded")),
    ],
)
def test_nothing_goes_while_anything_of_the_study_is_open(
    light: Site, make: Callable[[Site, str], None], state: str, files: int
) -> None:
    light.receive(image())
    make(light, state)
    light.clean()
    assert len(light.files()) == files


def test_work_that_was_held_once_and_done_since_keeps_nothing(light: Site) -> None:
    light.receive(image())
    with light.gateway.ledger.database.write() as connection:
        row = connection.execute(select(tables.work)).mappings().first()
        assert row is not None
        earlier = {**row, "id": "earlier", "state": "held", "created_at": row["created_at"] - DAY}
        connection.execute(insert(tables.work).values(**earlier))
    light.clean()
    assert light.files() == []


def test_what_retention_can_free_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _site(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", "{sources: 2d}")
    one = image()
    site.receive(one)
    size = len(encoded(one))
    known = holdings(site.gateway.settings, site.gateway.ledger.database)
    assert (known.kept, known.sources.due, known.sources.later) == (size, 0, size)
    assert known.sources.next is not None
    assert timedelta(days=1.9) < known.sources.next - now() <= 2 * DAY
    _age(site, 3 * DAY)
    known = holdings(site.gateway.settings, site.gateway.ledger.database)
    assert (known.sources.due, known.sources.later, known.sources.next) == (size, 0, None)
    site.clean()
    _let_an_hour_pass(monkeypatch)
    site.clean()
    assert holdings(site.gateway.settings, site.gateway.ledger.database).kept == 0
    site.gateway.close()


# ---------------------------------------------------------------------- what comes afterwards


def test_the_same_bytes_again_are_held_again_and_start_nothing(site: Site) -> None:
    one = image()
    site.receive(one)
    site.clean()
    assert site.receive(one) == [Stored()]
    assert site.receive(one) == [Duplicate()]
    assert site.states() == ["kept"]
    assert site.path(one).exists()
    assert len(site.views.timeline(str(one.StudyInstanceUID))["versions"]) == 1
    site.clean()
    assert site.files() == []


def test_a_late_instance_says_which_bytes_are_missing_and_goes_on_when_they_come(
    light: Site,
) -> None:
    one = image()
    light.receive(one)
    light.clean()
    late = _of(one)
    assert light.receive(late) == [Stored()]
    timeline = light.views.timeline(str(one.StudyInstanceUID))
    assert timeline["state"] == "failed"
    assert (
        f"1 of 2 Instances that this needs (the first is {one.SOPInstanceUID})"
        in (timeline["reason"])
    )
    assert "send the whole Study again" in timeline["reason"]
    light.clean()
    assert light.path(late).exists(), "a person must look first"
    light.receive(one)
    timeline = light.views.timeline(str(one.StudyInstanceUID))
    assert timeline["state"] == "not_current"
    assert [one["number"] for one in timeline["versions"]] == [1, 2]


@pytest.mark.parametrize(("take", "versions"), [("newest", 2), ("first", 1)])
def test_other_bytes_that_cannot_be_compared_any_more_wait_for_a_person(
    light: Site, take: str, versions: int
) -> None:
    one = image(PatientComments="before")
    light.receive(one)
    light.clean()
    one.PatientComments = "after"
    light.receive(one)
    study = str(one.StudyInstanceUID)
    timeline = light.views.timeline(study)
    assert timeline["state"] == "held"
    assert "retention has removed the earlier ones" in timeline["reason"]
    light.gateway.ledger.release(study, actor="test", take=take)
    light.carry_out()
    timeline = light.views.timeline(study)
    assert (timeline["state"], len(timeline["versions"])) == ("not_current", versions)


def test_a_study_that_something_came_for_meanwhile_is_not_let_go(site: Site) -> None:
    one = image()
    site.receive(one)
    database = site.gateway.ledger.database
    with database.read() as connection:
        due = ledger_retention.sources_due(connection, timedelta(0))
    assert due == one.StudyInstanceUID
    assert site.store(_of(one)) == Stored()
    with database.write() as connection:
        assert not ledger_retention.let_sources_go(connection, due, timedelta(0))
    assert site.states() == ["kept", "kept"]


def test_a_file_that_two_rows_name_stays_for_the_other(light: Site) -> None:
    one = image()
    light.receive(one)
    path = light.path(one)
    with light.gateway.ledger.database.write() as connection:
        row = connection.execute(select(tables.instances)).mappings().one()
        other = {**row, "id": None, "sop_instance_uid": "1.2.3", "study_instance_uid": "1.2"}
        connection.execute(insert(tables.instances).values(**other))
    light.clean()
    assert light.states() == ["removed", "kept"]
    assert path.exists()


# ---------------------------------------------------------------------- what no row knows


def age(paths: Iterable[Path]) -> None:
    for path in paths:
        os.utime(path, (0, time.time() - TEMPORARY_AGE - 1))


def test_what_got_a_name_and_no_row_is_removed_when_a_person_says_so(
    light: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, refused, young = image(), image(), image()
    assert light.store(kept) == Stored()

    def busy(*_: object, **__: object) -> None:
        raise LedgerBusyError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "record", busy)
        assert isinstance(light.store(refused), Refused)
        (stray,) = set(light.files()) - {light.path(kept)}
        assert isinstance(light.store(young), Refused)
    results = light.gateway.spool.results_path("0" * 64)
    results.write_bytes(b"{}")
    age([stray, results, light.path(kept)])
    light.clean_everything()
    assert {stray, results} < set(light.files())
    settings = light.gateway.settings
    assert tell_strays(settings, remove=False) == 2
    (line,) = stray_lines(settings, light.gateway.ledger.database)
    assert line.startswith("strays: 2 files")
    light.clean_everything()
    assert {stray, results} < set(light.files())
    assert tell_strays(settings, remove=True) == 2
    light.clean()
    left = set(light.files())
    assert light.path(kept) in left
    assert not {stray, results} & left
    assert len(left) == 2, "what is younger than an hour may be on its way"
    assert tell_strays(settings, remove=False) == 0
    assert [*stray_lines(settings, light.gateway.ledger.database)] == []
    assert "Send their Studies again" in capsys.readouterr().out
    assert light.store(refused) == Stored()


def test_a_stray_that_is_sent_again_before_it_is_removed_stays(
    light: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image()
    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            light.store(one)
    age(light.files())
    real = ledger_retention.ask_removal

    def late(*rest: Any) -> None:
        real(*rest)
        senders.submit(light.store, one)

    with ThreadPoolExecutor() as senders:
        monkeypatch.setattr(ledger_retention, "ask_removal", late)
        assert tell_strays(light.gateway.settings, remove=True) == 1
    light.clean_everything()
    assert light.path(one).exists()


def test_what_a_ledger_that_was_lost_acknowledged_is_still_there(light: Site) -> None:
    known, later = image(), image()
    assert light.store(known) == Stored()
    assert light.store(later) == Stored()
    path = light.path(later)
    with light.gateway.ledger.database.write() as connection:  # as in a backup that was put back
        mine = tables.instances.c.sop_instance_uid == str(later.SOPInstanceUID)
        connection.execute(delete(tables.instances).where(mine))
    age(light.files())
    light.clean_everything()
    assert path.exists()
    assert light.store(later) == Stored()


# ---------------------------------------------------------------------- a removal that is cut short


def test_a_removal_that_was_cut_short_is_ended_by_the_next_leader(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = image(), image()
    site.receive(one, other)
    fail_at = 1
    real = Path.unlink

    def unlink(path: Path, **how: Any) -> None:
        nonlocal fail_at
        if path.suffix == ".dcm":
            fail_at -= 1
            if fail_at < 0:
                raise OSError("read-only")
        real(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        with pytest.raises(OSError, match="read-only"):
            site.clean()
    assert len(site.files()) == 1, "one was removed, the other not"
    assert set(site.states()) == {"removed"}, "the ledger lets go before the disk does"
    Retention(site.gateway.settings, site.gateway.spool).look(site.gateway.ledger)
    assert site.files() == []


def test_nobody_waits_for_the_disk_that_takes_its_time_to_remove(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = image(), image()
    site.receive(one)
    real = Path.unlink
    stored = []

    def unlink(path: Path, **how: Any) -> None:
        if path.parent.name == "removed":
            stored.append(site.store(other))
        real(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        site.clean()
    assert stored == [Stored()]
    assert site.files() == [site.path(other)]


# ---------------------------------------------------------------------- what comes in between


def test_bytes_whose_file_is_removed_before_they_are_recorded_get_their_name_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image()
    site.receive(one)
    with site.gateway.ledger.database.write() as connection:
        ledger_retention.let_sources_go(connection, str(one.StudyInstanceUID), timedelta(0))
    assert site.path(one).exists()
    real = GroupCommit.record

    def late(group: GroupCommit, *rest: Any) -> bool:
        site.clean()  # the name was there already; now it is not
        assert not site.path(one).exists()
        return real(group, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(GroupCommit, "record", late)
        assert site.store(one) == Stored()
    assert site.path(one).exists()
    assert site.states() == ["kept"]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_came_after_the_lock_was_lost_keeps_its_file(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image()
    site.receive(one)
    path = site.path(one)
    other = Gateway(site.gateway.settings)
    sender = Site(other, site.retention)
    real = Spool.put_aside

    def late(spool: Spool, name: Path) -> None:
        real(spool, name)
        # The server starts again in the middle of the removal, and the sender comes before its end.
        with other.ledger.database.read() as connection:
            connection.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                    "and datname = current_database() and state = 'idle in transaction'"
                )
            )
        assert sender.store(one) == Stored()
        real(spool, name)

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "put_aside", late)
        with pytest.raises(LedgerBusyError):
            site.clean()
    assert not path.exists()
    site.retention._next = float("-inf")
    site.retention.look(site.gateway.ledger)
    assert path.exists()
    assert site.states() == ["kept"]
    assert list(site.gateway.spool.aside()) == []
    other.close()


def test_a_duplicate_whose_file_goes_while_it_is_judged_is_stored_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image()
    site.receive(one)
    path = site.path(one)
    real, asked = arrivals.known, [0]

    def known(*rest: Any) -> bool:
        found = real(*rest)
        asked[0] += 1
        if asked[0] == 1:
            site.clean()
        return found

    # The row is read on a connection of its own: what comes next does not wait for it.
    monkeypatch.setattr(arrivals, "known", known)
    assert site.store(one) == Stored()
    assert path.exists()
    assert site.states() == ["kept"]


def test_who_removes_waits_for_who_records_and_then_sees_the_row(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = image()
    site.receive(one)
    path = site.path(one)
    with site.gateway.ledger.database.write() as connection:
        ledger_retention.let_sources_go(connection, str(one.StudyInstanceUID), timedelta(0))
    other = Gateway(site.gateway.settings)
    remover = threading.Thread(
        target=lambda: Retention(other.settings, other.spool).look(other.ledger)
    )
    real = arrivals.record

    def record(*rest: Any, **named: Any) -> Recorded:
        remover.start()
        remover.join(0.5)
        assert remover.is_alive(), "it must wait: the file was seen, the row is not written"
        assert path.exists()
        return real(*rest, **named)

    monkeypatch.setattr(arrivals, "record", record)
    assert site.store(one) == Stored()
    remover.join()
    other.close()
    assert path.exists()
    assert site.states() == ["kept"]


@pytest.mark.parametrize("seed", range(2))
def test_senders_and_retention_at_once_never_leave_a_row_without_its_file(
    site: Site, seed: int
) -> None:
    first, second = image(), image()
    pool = [first, _of(first), second, _of(second)]
    data = {str(one.SOPInstanceUID): encoded(one) for one in pool}
    gateways = [Gateway(site.gateway.settings) for _ in range(3)]
    over = threading.Event()

    def send(gateway: Gateway, number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        own = Site(gateway, site.retention)
        for _ in range(40):
            own.store(chance.choice(pool))

    def clean() -> None:
        own = Site(gateways[2], Retention(site.gateway.settings, gateways[2].spool))
        while not over.is_set():
            own.carry_out()
            own.clean()
            _assert_every_row_has_its_file(own)

    with ThreadPoolExecutor() as threads:
        cleaner = threads.submit(clean)
        senders = [threads.submit(send, one, number) for number, one in enumerate(gateways[:2])]
        wait(senders)
        over.set()
    for ended in (cleaner, *senders):
        ended.result()
    for gateway in gateways:
        gateway.close()
    # Whatever came between, the bytes can come again, and are what they were.
    assert not any(isinstance(answer, Refused) for answer in site.receive(*pool))
    for one in pool:
        assert data_set_bytes(site.path(one).read_bytes()) == data[str(one.SOPInstanceUID)]
    assert {one["state"] for one in site.views.studies()} == {"not_current"}
    site.clean()
    assert site.files() == []


def _assert_every_row_has_its_file(site: Site) -> None:
    table = tables.instances
    with site.gateway.ledger.database.write() as connection:
        lock_spool(connection)
        rows = connection.execute(select(table).where(table.c.removed_at.is_(None))).all()
        lost = [
            one for one in rows if not site.gateway.spool.instance_path(one.digest, SYNTAX).exists()
        ]
    assert lost == []


# ---------------------------------------------------------------------- what was made of a Study


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """A gateway that makes results of radiographs, and lets everything go at once."""
    monkeypatch.setitem(models.MODELS, "parse2d", "tests.unit.fake_models:lungs")
    monkeypatch.setitem(models.MODELS, "cxrreport", "tests.unit.fake_models:nothing")
    keep = {"sources": "0d", "results": "0d"}
    made = Driver(tmp_path, f"sqlite:///{tmp_path / 'ledger.sqlite'}", retention=keep)
    yield made
    made.gateway.close()


def test_results_go_when_they_are_delivered_and_are_there_while_one_is_not(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = driver.gateway
    put, failed = Spool.put_results, []

    def full_once(spool: Spool, data: bytes) -> str:
        if not failed:
            failed.append(data)
            raise SpoolFullError("the spool cannot be written: check its disk")
        digest = put(spool, data)
        if len(failed) == 1:
            failed.append(data)
            spool.results_path(digest).unlink()  # an equal file that had been let go before
        return digest

    monkeypatch.setattr(Spool, "put_results", full_once)
    radiographs = phantom.chest_radiographs(name="kept", when=datetime.now(UTC), opacity=False)
    study = str(radiographs[0].StudyInstanceUID)
    driver.receive(*radiographs)
    queues = [one for one in Gateway.queue_names(gateway.settings) if "deliver" not in one]
    deadline = time.monotonic() + 60
    while not driver.timeline(study)["deliveries"]:
        assert time.monotonic() < deadline
        for queue in queues:
            gateway.carry_out(queue)
    site = Site(gateway, Retention(gateway.settings, gateway.spool))
    before = site.files()
    site.clean()
    assert site.files() == before, "not delivered yet"
    driver.carry_out()
    infer = [one for one in driver.timeline(study)["work"] if one["kind"] == "infer"]
    assert sum(one["attempts"] for one in infer) == len(infer) + 2, "put off, and no strike"
    assert {one["strikes"] for one in infer} == {0}
    site.clean()
    assert site.files() == []
    timeline = driver.timeline(study)
    assert timeline["state"] == "nothing_found"
    assert all(one["removed"] for one in timeline["objects"])
    kinds = [one["kind"] for one in timeline["events"] if one["actor"] == "retention"]
    assert kinds == ["sources removed", "results removed"]
    assert len([*(tmp_path / "results").rglob("*.dcm")]) == len(timeline["objects"])
    driver.receive(*radiographs)
    driver.carry_out()
    assert driver.timeline(study)["state"] == "nothing_found"
