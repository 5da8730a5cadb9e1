"""The chain of sealed events: whatever is done to one of them is found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, text, update

from pacs_ai.ledger import Ledger, audit, events, tables, work
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.rows import Kind
from tests.unit.ledger.test_work import STUDY, TIMES, add_study

EVENTS = 6


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    made = Ledger(ledger_url, TIMES)
    made.database.upgrade()
    yield made
    made.close()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Ledger]:
    """Some events on SQLite alone, which keeps whatever is written over a value."""
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", TIMES)
    made.database.upgrade()
    _record(made)
    yield made
    made.close()


def _record(ledger: Ledger, count: int = EVENTS) -> None:
    for number in range(count):
        with ledger.database.write() as connection:
            events.record(
                connection,
                "infer done",
                actor="gateway",
                study=STUDY,
                work_id=f"work {number}",
                reason=f"reason {number} – ü",
                detail={"number": number, "nested": {"b": [1.5, None], "a": True}},
            )


def _seal_all(ledger: Ledger) -> None:
    while ledger.seal_events():
        pass


def test_events_are_sealed_after_they_were_written_and_hold(ledger: Ledger) -> None:
    _record(ledger)
    assert ledger.verify_events().unsealed == EVENTS
    assert ledger.seal_events() == EVENTS
    verdict = ledger.verify_events()
    assert (verdict.sealed, verdict.unsealed, verdict.broken) == (EVENTS, 0, None)
    assert ledger.seal_events() == 0


def test_a_chain_goes_on_where_it_ended(ledger: Ledger) -> None:
    _record(ledger, 2)
    _seal_all(ledger)
    first = ledger.verify_events().seal
    _record(ledger, 3)
    _seal_all(ledger)
    verdict = ledger.verify_events(noted=first)
    assert (verdict.sealed, verdict.broken) == (5, None)
    assert verdict.seal != first


def test_more_events_than_a_batch_are_sealed_in_rounds(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_BATCH", 2)
    _record(ledger, 5)
    assert [ledger.seal_events() for _ in range(4)] == [2, 2, 1, 0]
    assert ledger.verify_events().broken is None


def test_an_event_that_is_committed_late_is_sealed_late(postgresql_ledger: Ledger) -> None:
    ledger = postgresql_ledger
    with ledger.database.write() as slow:
        events.record(slow, "early", actor="gateway")
        with ledger.database.write() as quick:
            events.record(quick, "late", actor="gateway")
        assert ledger.seal_events() == 1
    assert ledger.seal_events() == 1
    with ledger.database.read() as connection:
        table = tables.events
        rows = connection.execute(select(table.c.kind).order_by(table.c.position)).all()
    assert [row.kind for row in rows] == ["late", "early"]
    assert ledger.verify_events().broken is None


@pytest.fixture
def postgresql_ledger(postgresql: Any) -> Iterator[Ledger]:
    made = Ledger(postgresql.url(postgresql.lend_ledger()), TIMES)
    made.database.upgrade()
    yield made
    made.close()


def test_two_that_seal_at_once_make_one_chain(ledger: Ledger) -> None:
    # The lease of a leader can end while it still seals.
    _record(ledger)
    both = threading.Barrier(2)
    sealed: list[int] = []

    def seal() -> None:
        both.wait()
        sealed.append(ledger.seal_events())

    threads = [threading.Thread(target=seal) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sealed) == [0, EVENTS]
    verdict = ledger.verify_events()
    assert (verdict.sealed, verdict.broken) == (EVENTS, None)


def test_events_that_wait_for_their_seal_are_counted_and_dated(ledger: Ledger) -> None:
    _record(ledger, 2)
    _seal_all(ledger)
    _record(ledger, 3)
    verdict = ledger.verify_events()
    assert (verdict.sealed, verdict.unsealed, verdict.broken) == (2, 3, None)
    assert verdict.oldest_unsealed is not None


def test_a_seal_that_was_noted_and_is_gone_is_told(ledger: Ledger) -> None:
    # Who rewrites the ledger as a whole makes a chain that holds; not the noted seal.
    _record(ledger)
    _seal_all(ledger)
    noted = ledger.verify_events().seal
    with ledger.database.write() as connection:
        connection.execute(delete(tables.chain))
        connection.execute(update(tables.events).values(position=None, seal=None, actor="anna"))
    _seal_all(ledger)
    assert ledger.verify_events().broken is None
    broken = ledger.verify_events(noted=noted).broken
    assert broken is not None
    assert "noted" in broken.why


# ---------------------------------------------------------------------- what is done to them


def _change(connection: Connection, one: int, column: str) -> None:
    table = tables.events
    row = connection.execute(select(table).where(table.c.position == one)).one()
    value = getattr(row, column)
    other: object = {
        "at": row.at + timedelta(microseconds=1),
        "detail": {**row.detail, "number": -1},
        "id": 1_000,
    }.get(column, f"{value}x"[-64:])
    connection.execute(update(table).where(table.c.position == one).values({column: other}))


def _take_out(connection: Connection, one: int) -> None:
    connection.execute(delete(tables.events).where(tables.events.c.position == one))


def _take_out_and_close_the_gap(connection: Connection, one: int) -> None:
    _take_out(connection, one)
    table = tables.events
    for later in range(one + 1, EVENTS + 1):
        moved = update(table).where(table.c.position == later).values(position=later - 1)
        connection.execute(moved)


def _unseal(connection: Connection, one: int) -> None:
    table = tables.events
    unsealed = update(table).where(table.c.position == one).values(position=None, seal=None)
    connection.execute(unsealed)


def _put_in(connection: Connection, one: int) -> None:
    table = tables.events
    for later in range(EVENTS, one - 1, -1):
        moved = update(table).where(table.c.position == later).values(position=later + 1)
        connection.execute(moved)
    row = connection.execute(select(table).where(table.c.position == one + 1)).one()
    values = {**row._mapping, "id": 1_000, "position": one}
    connection.execute(insert(table).values(**values))


def _swap(connection: Connection, one: int, other: int) -> None:
    table = tables.events
    for before, after in ((one, 0), (other, one), (0, other)):
        moved = update(table).where(table.c.position == before).values(position=after)
        connection.execute(moved)


def _swap_with_their_seals(connection: Connection, one: int, other: int) -> None:
    table = tables.events
    seals = {
        place: connection.scalar(select(table.c.seal).where(table.c.position == place))
        for place in (one, other)
    }
    _swap(connection, one, other)
    for place, value in seals.items():
        connection.execute(update(table).where(table.c.position == place).values(seal=value))


_PLACES = st.integers(1, EVENTS)
_COLUMNS = st.sampled_from(
    ["id", "at", "kind", "actor", "study_instance_uid", "work_id", "reason", "detail", "seal"]
)
_DEEDS = st.one_of(
    st.tuples(st.just(_change), _PLACES, _COLUMNS),
    st.tuples(st.just(_take_out), _PLACES),
    st.tuples(st.just(_take_out_and_close_the_gap), _PLACES),
    st.tuples(st.just(_unseal), _PLACES),
    st.tuples(st.just(_put_in), _PLACES),
    st.tuples(st.sampled_from([_swap, _swap_with_their_seals]), _PLACES, _PLACES).filter(
        lambda deed: deed[1] != deed[2]
    ),
)


@given(deed=_DEEDS)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_whatever_is_done_to_a_sealed_event_is_found(ledger: Ledger, deed: Any) -> None:
    _restart(ledger)
    what, *where = deed
    with ledger.database.write() as connection:
        what(connection, *where)
    broken = ledger.verify_events().broken
    assert broken is not None
    assert broken.position == min(one for one in where if isinstance(one, int))
    # Whoever seals afterwards mends nothing.
    _record(ledger, 1)
    _seal_all(ledger)
    assert ledger.verify_events().broken is not None


def _restart(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        connection.execute(delete(tables.events))
        connection.execute(delete(tables.chain))
    _record(ledger)
    _seal_all(ledger)
    assert ledger.verify_events().broken is None


@pytest.mark.parametrize(("column", "value"), [("at", "garbage"), ("at", 5), ("detail", "{")])
@pytest.mark.parametrize("sealed", [True, False])
def test_what_nobody_can_read_is_found_too(
    light: Ledger, column: str, value: object, *, sealed: bool
) -> None:
    if sealed:
        _seal_all(light)
    with light.database.write() as connection:
        written = text(f"UPDATE events SET {column} = :value WHERE id = 3")  # noqa: S608 - our own names
        connection.execute(written, {"value": value})
    broken = light.verify_events().broken
    assert broken is not None
    assert (broken.event, broken.why) == (3, "it cannot be read")


def test_an_emptied_record_is_found_where_work_was_done(light: Ledger) -> None:
    assert light.verify_events().broken is None
    add_study(light)
    with light.database.write() as connection:
        work.add(connection, Kind.ROUTE, queue=work.ROUTE, subject="v", study=STUDY)
        connection.execute(update(tables.work).values(ended_at=now()))
        connection.execute(delete(tables.events))
        connection.execute(delete(tables.chain))
    broken = light.verify_events().broken
    assert broken is not None
    assert "no event" in broken.why
