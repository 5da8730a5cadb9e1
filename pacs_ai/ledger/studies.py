"""Facts about Instances, Studies, their versions, routes, Jobs and results."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update

from pacs_ai.ledger import tables
from pacs_ai.ledger.clock import now

_STANDING = ("kept", "unchecked", "conflict")
"""States of an Instance that counts or must still be compared."""


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """A row of ``instances``: what is held, and where it stands."""

    id: int
    SOPInstanceUID: str
    StudyInstanceUID: str
    digest: str
    transfer_syntax_uid: str
    state: str
    peer: str
    received_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of ``jobs``."""

    id: str
    key: str
    study: str
    rule: str
    endpoint: str
    kind: str
    inputs: Mapping[str, Sequence[int]]
    parameters: Mapping[str, Any]
    model: Mapping[str, Any]
    created_at: datetime
    outcome: str | None
    flagged: bool
    reason: str | None
    results_digest: str | None
    results_removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Version:
    """A row of ``versions``: a frozen set of source Instances."""

    id: str
    study: str
    number: int
    content_key: str
    frozen_at: datetime
    not_current: str | None


def peer(connection: Connection, study: str) -> str:
    """Return the name of the peer that a Study came from first."""
    table = tables.studies
    found = select(table.c.peer).where(table.c.study_instance_uid == study)
    return str(connection.execute(found).scalar_one())


def source_instances(connection: Connection, study: str) -> list[StoredInstance]:
    """Return a Study's source Instances that count or must still be compared, oldest first."""
    table = tables.instances
    rows = connection.execute(
        select(table)
        .where(
            table.c.study_instance_uid == study,
            table.c.role == "source",
            table.c.state.in_(_STANDING),
        )
        .order_by(table.c.received_at, table.c.id)
    )
    return [_stored(row) for row in rows]


def contradicting_instances(connection: Connection, study: str) -> list[StoredInstance]:
    """Return what counts, or must still be compared, of other Studies under SOP Instance UIDs of a Study.

    Only under UIDs of which something in this Study is not settled; oldest first.
    """
    table, own = tables.instances, tables.instances.alias()
    unsettled = select(own.c.sop_instance_uid).where(
        own.c.study_instance_uid == study,
        own.c.role == "source",
        own.c.state.in_(["unchecked", "conflict"]),
    )
    rows = connection.execute(
        select(table)
        .where(
            table.c.sop_instance_uid.in_(unsettled),
            table.c.study_instance_uid != study,
            table.c.role == "source",
            table.c.state.in_(_STANDING),
        )
        .order_by(table.c.received_at, table.c.id)
    )
    return [_stored(row) for row in rows]


def derived_instances(
    connection: Connection, study: str, *, sop_class_uid: str
) -> list[StoredInstance]:
    """Return what is still held of a SOP Class that was made from a Study's images, oldest first."""
    table = tables.instances
    rows = connection.execute(
        select(table)
        .where(
            table.c.study_instance_uid == study,
            table.c.role == "derived",
            table.c.sop_class_uid == sop_class_uid,
            table.c.removed_at.is_(None),
        )
        .order_by(table.c.id)
    )
    return [_stored(row) for row in rows]


def instances_by_id(connection: Connection, ids: Iterable[int]) -> dict[int, StoredInstance]:
    """Return Instances by the id of their row."""
    table = tables.instances
    rows = connection.execute(select(table).where(table.c.id.in_([*ids])).order_by(table.c.id))
    return {row.id: _stored(row) for row in rows}


def version_instances(connection: Connection, version_id: str) -> list[StoredInstance]:
    """Return the Instances of a Study version, oldest first."""
    table, link = tables.instances, tables.version_instances
    rows = connection.execute(
        select(table)
        .join(link, link.c.instance_id == table.c.id)
        .where(link.c.version_id == version_id)
        .order_by(table.c.id)
    )
    return [_stored(row) for row in rows]


def _stored(row: Any) -> StoredInstance:
    return StoredInstance(
        id=row.id,
        SOPInstanceUID=row.sop_instance_uid,
        StudyInstanceUID=row.study_instance_uid,
        digest=row.digest,
        transfer_syntax_uid=row.transfer_syntax_uid,
        state=row.state,
        peer=row.peer,
        received_at=row.received_at,
        removed_at=row.removed_at,
    )


def mark_instance(connection: Connection, instance_id: int, state: str) -> None:
    """Record what a comparison found: duplicate, replaced, conflict or kept."""
    table = tables.instances
    connection.execute(update(table).where(table.c.id == instance_id).values(state=state))


def replace_duplicates(connection: Connection, instance_id: int) -> None:
    """Record that an Instance replaced its twins' duplicates too: the same content, encoded otherwise.

    A duplicate that came later is one of this Instance, and stays.
    """
    table, new = tables.instances, tables.instances.alias()
    newer = exists().where(
        new.c.id == instance_id,
        new.c.sop_instance_uid == table.c.sop_instance_uid,
        new.c.study_instance_uid == table.c.study_instance_uid,
        new.c.received_at > table.c.received_at,
    )
    connection.execute(
        update(table)
        .where(table.c.role == "source", table.c.state == "duplicate", newer)
        .values(state="replaced")
    )


def newest_version(connection: Connection, study: str) -> Version | None:
    """Return a Study's latest version."""
    table = tables.versions
    row = connection.execute(
        select(table)
        .where(table.c.study_instance_uid == study)
        .order_by(table.c.number.desc())
        .limit(1)
    ).first()
    return None if row is None else _version(row)


def version(connection: Connection, version_id: str) -> Version:
    """Return a Study version by its id."""
    table = tables.versions
    return _version(connection.execute(select(table).where(table.c.id == version_id)).one())


def _version(row: Any) -> Version:
    return Version(
        id=row.id,
        study=row.study_instance_uid,
        number=row.number,
        content_key=row.content_key,
        frozen_at=row.frozen_at,
        not_current=row.not_current,
    )


def freeze(
    connection: Connection,
    study: str,
    members: Sequence[StoredInstance],
    *,
    content_key: str,
    evidence: str,
    not_current: str | None,
) -> str:
    """Make a new Study version of these Instances; earlier ones are superseded. Return its id."""
    table = tables.versions
    at = now()
    newest = newest_version(connection, study)
    connection.execute(
        update(table)
        .where(table.c.study_instance_uid == study, table.c.superseded_at.is_(None))
        .values(superseded_at=at)
    )
    version_id = str(uuid.uuid4())
    connection.execute(
        insert(table).values(
            id=version_id,
            study_instance_uid=study,
            number=1 if newest is None else newest.number + 1,
            content_key=content_key,
            frozen_at=at,
            evidence=evidence,
            not_current=not_current,
        )
    )
    connection.execute(
        insert(tables.version_instances),
        [{"version_id": version_id, "instance_id": member.id} for member in members],
    )
    return version_id


def set_accession_number(connection: Connection, study: str, accession_number: str) -> None:
    """Record the Accession Number that a Study can be asked for by."""
    table = tables.studies
    connection.execute(
        update(table)
        .where(table.c.study_instance_uid == study)
        .values(accession_number=accession_number[:64])
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """What a person's decision about contradicting Instances came to.

    Attributes
    ----------
    others : set of str
        Other Studies of which Instances count no more whose bytes are there.
    counting, rejected : list of str
        Digests of the Instances that count from now on, and of those that do not.
    """

    others: set[str]
    counting: list[str]
    rejected: list[str]


def settle_conflicts(connection: Connection, study: str, *, take: str) -> Settled:
    """End a Study's conflicts as a person decided: the ``first`` or the ``newest`` Instances count.

    What another Study holds under the same SOP Instance UID is rejected where the newest count. The caller
    holds the locks of both Studies.
    """
    table = tables.instances
    conflicts = connection.execute(
        select(table)
        .where(table.c.study_instance_uid == study, table.c.state == "conflict")
        .order_by(table.c.received_at, table.c.id)
    ).all()
    others: set[str] = set()
    marked: dict[int, tuple[str, bool]] = {}  # digest, and whether it counts in the end
    for row in conflicts:
        if take == "first":
            mark_instance(connection, row.id, "rejected")
            marked[row.id] = row.digest, False
            continue
        # A conflict of another Study is that Study's to settle; it contradicts this one from now on.
        in_conflict = and_(table.c.study_instance_uid == study, table.c.state == "conflict")
        beaten = connection.execute(
            update(table)
            .where(
                table.c.sop_instance_uid == row.sop_instance_uid,
                table.c.role == "source",
                or_(table.c.state == "kept", in_conflict),
                table.c.id != row.id,
            )
            .values(state="rejected")
            .returning(table.c.id, table.c.study_instance_uid, table.c.removed_at, table.c.digest)
        )
        for one in beaten:
            marked[one.id] = one.digest, False
            if one.removed_at is None and one.study_instance_uid != study:
                others.add(one.study_instance_uid)
        mark_instance(connection, row.id, "kept")
        marked[row.id] = row.digest, True
    return Settled(
        others,
        counting=[digest for digest, counts in marked.values() if counts],
        rejected=[digest for digest, counts in marked.values() if not counts],
    )


def add_routing(
    connection: Connection,
    version_id: str,
    *,
    verdicts: Sequence[tuple[str, bool, str]],
    refusals: Sequence[tuple[str, str | None, str]],
) -> None:
    """Record what every rule said of a Study version, and why; what it said before is replaced."""
    for said in (tables.verdicts, tables.refusals, tables.version_jobs):
        connection.execute(delete(said).where(said.c.version_id == version_id))
    for position, (rule, matched, deciding) in enumerate(verdicts):
        connection.execute(
            insert(tables.verdicts).values(
                version_id=version_id,
                position=position,
                rule=rule,
                matched=matched,
                deciding=deciding,
            )
        )
    for position, (rule, endpoint, reason) in enumerate(refusals):
        connection.execute(
            insert(tables.refusals).values(
                version_id=version_id,
                position=position,
                rule=rule,
                endpoint=endpoint,
                reason=reason,
            )
        )
    table = tables.versions
    connection.execute(update(table).where(table.c.id == version_id).values(routed_at=now()))


@dataclass(frozen=True, slots=True)
class AskedJob:
    """A Job that a Study version asks for; ``inputs`` holds rows of ``instances`` by role."""

    key: str
    rule: str
    endpoint: str
    kind: str
    inputs: Mapping[str, Sequence[int]]
    parameters: Mapping[str, Any]
    model: Mapping[str, Any]


def add_job(
    connection: Connection, version: Version, position: int, asked: AskedJob
) -> tuple[str, bool]:
    """Link a Study version to the Job of this key; return the Job's id and whether it is new."""
    table = tables.jobs
    job_id = connection.scalar(select(table.c.id).where(table.c.key == asked.key))
    new = job_id is None
    if new:
        job_id = str(uuid.uuid4())
        connection.execute(
            insert(table).values(
                id=job_id,
                key=asked.key,
                study_instance_uid=version.study,
                rule=asked.rule,
                endpoint=asked.endpoint,
                kind=asked.kind,
                inputs={role: list(ids) for role, ids in asked.inputs.items()},
                parameters=dict(asked.parameters),
                model=dict(asked.model),
                created_at=now(),
                flagged=False,
            )
        )
    connection.execute(
        insert(tables.version_jobs).values(version_id=version.id, job_id=job_id, position=position)
    )
    return str(job_id), new


def asked_keys(connection: Connection, version: Version) -> list[str]:
    """Return the keys of the Jobs that a Study version asks for."""
    link, jobs = tables.version_jobs, tables.jobs
    rows = connection.scalars(
        select(jobs.c.key)
        .join(link, link.c.job_id == jobs.c.id)
        .where(link.c.version_id == version.id)
    )
    return [*rows]


def other_versions(connection: Connection, version: Version) -> list[str]:
    """Return the ids of a Study's other versions."""
    table = tables.versions
    rows = connection.scalars(
        select(table.c.id).where(
            table.c.study_instance_uid == version.study, table.c.id != version.id
        )
    )
    return [*rows]


def absent_jobs(connection: Connection, version: Version) -> list[str]:
    """Return the ids of a Study's Jobs that this version no longer asks for."""
    link, jobs = tables.version_jobs, tables.jobs
    asked = select(link.c.job_id).where(link.c.version_id == version.id)
    rows = connection.scalars(
        select(jobs.c.id).where(jobs.c.study_instance_uid == version.study, jobs.c.id.not_in(asked))
    )
    return [*rows]


def job(connection: Connection, job_id: str) -> JobRow:
    """Return a Job by its id."""
    row = connection.execute(select(tables.jobs).where(tables.jobs.c.id == job_id)).one()
    return _job(row)


def version_jobs(connection: Connection, version_id: str) -> list[JobRow]:
    """Return the Jobs of a Study version in the order of the rules."""
    jobs, link = tables.jobs, tables.version_jobs
    rows = connection.execute(
        select(jobs)
        .join(link, link.c.job_id == jobs.c.id)
        .where(link.c.version_id == version_id)
        .order_by(link.c.position)
    )
    return [_job(row) for row in rows]


def rule_jobs(connection: Connection, study: str, rule: str) -> list[JobRow]:
    """Return the Jobs that one rule has asked for, whatever version of a Study it was."""
    jobs = tables.jobs
    rows = connection.execute(
        select(jobs).where(jobs.c.study_instance_uid == study, jobs.c.rule == rule)
    )
    return [_job(row) for row in rows]


def _job(row: Any) -> JobRow:
    return JobRow(
        id=row.id,
        key=row.key,
        study=row.study_instance_uid,
        rule=row.rule,
        endpoint=row.endpoint,
        kind=row.kind,
        inputs=row.inputs,
        parameters=row.parameters,
        model=row.model,
        created_at=row.created_at,
        outcome=row.outcome,
        flagged=row.flagged,
        reason=row.reason,
        results_digest=row.results_digest,
        results_removed_at=row.results_removed_at,
    )


def end_job(
    connection: Connection,
    job_id: str,
    *,
    outcome: str,
    flagged: bool,
    reason: str | None,
    results_digest: str | None,
) -> None:
    """Record what a Job came to, and whether a finding is present among its results."""
    table = tables.jobs
    connection.execute(
        update(table)
        .where(table.c.id == job_id)
        .values(
            outcome=outcome,
            flagged=flagged,
            reason=reason,
            results_digest=results_digest,
            results_removed_at=None,
            ended_at=now(),
        )
    )


def counts(connection: Connection, study: str) -> dict[str, int]:
    """Return how many Instances of a Study were taken in, by role."""
    table = tables.instances
    rows = connection.execute(
        select(table.c.role, func.count().label("number"))
        .where(table.c.study_instance_uid == study)
        .group_by(table.c.role)
    )
    return {row.role: row.number for row in rows}


def removed(connection: Connection, study: str) -> int:
    """Return how many Instances of a Study retention let go."""
    table = tables.instances
    gone = and_(table.c.study_instance_uid == study, table.c.removed_at.is_not(None))
    return connection.scalar(select(func.count()).select_from(table).where(gone)) or 0
