"""Facts about the SOP Instances the gateway made, where they must go, and what came back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, select, update

from pacs_ai.errors import EncodingError
from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A row of ``objects``: a SOP Instance the gateway made, stored once."""

    SOPInstanceUID: str
    SOPClassUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    transfer_syntax_uid: str
    kind: str
    volumetric: bool
    subject: str
    digest: str
    size: int


def add_object(connection: Connection, made: ObjectRow) -> None:
    """Record a SOP Instance whose bytes are durable.

    Raises
    ------
    EncodingError
        When other bytes were made under this UID before: nothing may be sent then.
    """
    table = tables.objects
    found = connection.scalar(
        select(table.c.digest).where(table.c.sop_instance_uid == made.SOPInstanceUID)
    )
    if found is not None:
        if found != made.digest:
            raise EncodingError(f"{made.SOPInstanceUID} was made before with other bytes")
        connection.execute(
            update(table)
            .where(table.c.sop_instance_uid == made.SOPInstanceUID)
            .values(removed_at=None)  # its bytes are there again
        )
        return
    connection.execute(
        insert(table).values(
            sop_instance_uid=made.SOPInstanceUID,
            sop_class_uid=made.SOPClassUID,
            study_instance_uid=made.StudyInstanceUID,
            series_instance_uid=made.SeriesInstanceUID,
            transfer_syntax_uid=made.transfer_syntax_uid,
            kind=made.kind,
            volumetric=made.volumetric,
            subject=made.subject,
            digest=made.digest,
            size=made.size,
            made_at=now(),
        )
    )


def objects_of(connection: Connection, subjects: Iterable[str]) -> list[ObjectRow]:
    """Return the SOP Instances made for Jobs or pages, by their keys; superseded ones left out."""
    table = tables.objects
    rows = connection.execute(
        select(table)
        .where(table.c.subject.in_([*subjects]), table.c.superseded_at.is_(None))
        .order_by(table.c.made_at, table.c.sop_instance_uid)
    )
    return [_object(row) for row in rows]


def match_results(connection: Connection, study: str, asked: Iterable[str]) -> None:
    """Mark the results of Jobs that a Study no longer asks for as superseded; the others as current.

    What is superseded before it was sent is not sent any more. Pages are matched as they are made.
    """
    table = tables.objects
    keys = [*asked]
    of_jobs = and_(table.c.study_instance_uid == study, table.c.kind != "capture")
    connection.execute(
        update(table)
        .where(of_jobs, table.c.subject.not_in(keys), table.c.superseded_at.is_(None))
        .values(superseded_at=now())
    )
    connection.execute(
        update(table).where(of_jobs, table.c.subject.in_(keys)).values(superseded_at=None)
    )
    _match_deliveries(connection, study)


def supersede_other_pages(connection: Connection, study: str, key: str) -> None:
    """Mark a Study's pages but the one of this key: one page, of one set of Jobs, is current."""
    _supersede_pages(connection, study, tables.objects.c.subject != key)


def supersede_page(connection: Connection, study: str, key: str) -> None:
    """Mark a page that was made for a Study version that is not the newest any more."""
    _supersede_pages(connection, study, tables.objects.c.subject == key)


def _supersede_pages(connection: Connection, study: str, which: ColumnElement[bool]) -> None:
    table = tables.objects
    page = and_(table.c.study_instance_uid == study, table.c.kind == "capture")
    connection.execute(
        update(table)
        .where(page, which, table.c.superseded_at.is_(None))
        .values(superseded_at=now())
    )
    _match_deliveries(connection, study)


def _match_deliveries(connection: Connection, study: str) -> None:
    table, made = tables.deliveries, tables.objects
    of_study = select(made.c.sop_instance_uid).where(made.c.study_instance_uid == study)
    for before, after, objects in (
        ("pending", "superseded", of_study.where(made.c.superseded_at.is_not(None))),
        (
            "superseded",
            "pending",
            of_study.where(made.c.superseded_at.is_(None), made.c.removed_at.is_(None)),
        ),
    ):
        connection.execute(
            update(table)
            .where(table.c.state == before, table.c.sop_instance_uid.in_(objects))
            .values(state=after)
        )


def add_delivery(
    connection: Connection, sop_instance_uid: str, destination: str, state: str
) -> bool:
    """Ask for a delivery (``pending``) or record that it is ``withheld``; False when asked before."""
    table = tables.deliveries
    asked = select(table.c.state).where(
        table.c.sop_instance_uid == sop_instance_uid, table.c.destination == destination
    )
    if connection.scalar(asked) is not None:
        return False
    connection.execute(
        insert(table).values(
            sop_instance_uid=sop_instance_uid,
            destination=destination,
            state=state,
            created_at=now(),
        )
    )
    return True


def pending(connection: Connection, study: str, destination: str) -> list[ObjectRow]:
    """Return a Study's current SOP Instances that a destination must still get."""
    return [one for one, at in _current(connection, study, "pending") if at == destination]


def refused(connection: Connection, study: str, destination: str) -> int:
    """Return how many of a Study's current SOP Instances a destination refused for good."""
    return sum(at == destination for _, at in _current(connection, study, "refused"))


def unfinished(connection: Connection, study: str) -> set[str]:
    """Return the destinations that have not got all of a Study's current SOP Instances, or refused some."""
    return {at for _, at in _current(connection, study, "pending", "refused")}


def stored(connection: Connection, study: str) -> list[tuple[ObjectRow, str]]:
    """Return a Study's current SOP Instances that destinations have, each with the destination's name."""
    return _current(connection, study, "stored")


def _current(connection: Connection, study: str, *states: str) -> list[tuple[ObjectRow, str]]:
    """Return a Study's current SOP Instances whose delivery is in a state, and where it goes."""
    table, link = tables.objects, tables.deliveries
    rows = connection.execute(
        select(table, link.c.destination)
        .join(link, link.c.sop_instance_uid == table.c.sop_instance_uid)
        .where(
            table.c.study_instance_uid == study,
            table.c.superseded_at.is_(None),
            link.c.state.in_(states),
        )
        .order_by(table.c.made_at, table.c.sop_instance_uid, link.c.destination)
    )
    return [(_object(row), row.destination) for row in rows]


def try_refused_again(connection: Connection, study: str) -> None:
    """Let what was refused for good be sent once more, because a person said so, if it is current."""
    table, made = tables.deliveries, tables.objects
    current = select(made.c.sop_instance_uid).where(
        made.c.study_instance_uid == study, made.c.superseded_at.is_(None)
    )
    connection.execute(
        update(table)
        .where(table.c.state == "refused", table.c.sop_instance_uid.in_(current))
        .values(state="pending")
    )


def withhold(connection: Connection, sop_instance_uid: str, destination: str) -> None:
    """Record that a SOP Instance is not sent, because the settings say so by now."""
    table = tables.deliveries
    connection.execute(
        update(table)
        .where(table.c.sop_instance_uid == sop_instance_uid, table.c.destination == destination)
        .values(state="withheld")
    )


def add_receipt(
    connection: Connection,
    sop_instance_uid: str,
    destination: str,
    *,
    answer: str,
    status: int | None,
    detail: str,
) -> None:
    """Record what a destination answered; ``stored`` and ``refused`` end the delivery.

    A refusal ends none that has ended: a worker that lost its lease may tell of it after its successor.
    """
    connection.execute(
        insert(tables.receipts).values(
            sop_instance_uid=sop_instance_uid,
            destination=destination,
            answer=answer,
            status=status,
            detail=detail,
            at=now(),
        )
    )
    table = tables.deliveries
    asked = and_(table.c.sop_instance_uid == sop_instance_uid, table.c.destination == destination)
    if answer == "refused":
        asked = and_(asked, table.c.state == "pending")
    if answer in ("stored", "refused"):
        connection.execute(update(table).where(asked).values(state=answer))


def _object(row: Any) -> ObjectRow:
    return ObjectRow(
        SOPInstanceUID=row.sop_instance_uid,
        SOPClassUID=row.sop_class_uid,
        StudyInstanceUID=row.study_instance_uid,
        SeriesInstanceUID=row.series_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        kind=row.kind,
        volumetric=row.volumetric,
        subject=row.subject,
        digest=row.digest,
        size=row.size,
    )
